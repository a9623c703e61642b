"""From `start` to a running child, its options, its end and the report of it."""
