"""The photos that training learns from: read, cleaned, split."""
