"""`fit`: from labelled photos to a bundle with its figures."""
