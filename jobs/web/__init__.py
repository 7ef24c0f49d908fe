"""The page that `enrich serve` shows: a file of `pages/` for each of its pages, rendered here."""
