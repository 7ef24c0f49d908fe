"""Photos from outside: their bytes, and the pixels in them."""
