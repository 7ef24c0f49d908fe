"""Calibration and thresholds, from what held-out photos come out as."""
