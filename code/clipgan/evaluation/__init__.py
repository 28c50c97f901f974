"""Sampling, and the three scores: FID, Inception Score and R-precision."""
