"""Replay: recorded searches, seen again as they stood, and what stopping them earlier would have come to."""
