"""Sampling and the three scores."""
