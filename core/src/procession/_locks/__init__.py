"""Locks, semaphores, events, conditions and barriers."""
