"""Verifiable instructions: what a task asks of its answer in so many words, found by rules, checked by plain code."""
