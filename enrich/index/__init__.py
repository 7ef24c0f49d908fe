"""Documents, and the search indices that they go to."""
