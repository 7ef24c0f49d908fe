"""Carries many listings' photos through the stages at once: the only part that knows their order."""
