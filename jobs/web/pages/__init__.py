"""The pages: each module has a `router`, and `NAV` (words, address) where every page leads to it."""
