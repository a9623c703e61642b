"""Python's multiprocessing, taken apart into contracts and plugins."""

__version__ = "0.1.0"
