"""How good a bundle is on labelled photos, measured the way it is served."""
