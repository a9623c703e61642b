"""Errors, and the kernel's files, descriptors, locks and waits."""
