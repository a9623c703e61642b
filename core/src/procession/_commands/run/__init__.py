"""``procession run``: programs written for multiprocessing, unmodified.

Its modules import next to nothing: they are loaded before the program, and in each of its children
that has a fresh interpreter.
"""
