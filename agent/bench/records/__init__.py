"""Recorded searches as tables, and what they show of the judge: coverage, selection, calibration."""
