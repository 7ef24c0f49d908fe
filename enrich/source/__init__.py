"""The portal's tables, read and never written, and what changed in them."""
