"""The runs that the commands start."""
