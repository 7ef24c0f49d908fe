-- The portal's two tables, empty. A portal has its own, or views of these names: docs/quickstart-own-data.md.
CREATE TABLE listings (
  id text PRIMARY KEY,
  updated_at timestamptz NOT NULL DEFAULT now(),
  active boolean,
  city text,
  price bigint
);
CREATE TABLE listing_images (
  listing_id text NOT NULL REFERENCES listings ON DELETE CASCADE,
  position integer NOT NULL,
  url text NOT NULL,
  version text,
  PRIMARY KEY (listing_id, position)
);
