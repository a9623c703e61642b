"""Which plugins there are, which is used, what a connection puts up with, and who chose it."""
