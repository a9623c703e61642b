"""Shared memory, values and arrays."""
