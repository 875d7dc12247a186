"""Judges: they turn evidence (tests, execution, agreement) into scores, and name the best answer."""
