"""Queues, and what mailboxes are made of."""
