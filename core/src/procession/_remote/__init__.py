"""Listeners, clients and managers, encrypted or not."""
