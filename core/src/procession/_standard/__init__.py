"""Keeping the standard library's `multiprocessing` in step, where a program has loaded it."""
