"""Pools and the executor, their workers, and what the two say to each other."""
