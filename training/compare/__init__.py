"""The comparison of architectures that the study made, for anyone to repeat on photos of their own."""
