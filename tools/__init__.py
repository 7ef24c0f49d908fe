"""What `make` needs to install: not part of the wheel, standard library only."""
