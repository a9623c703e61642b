"""Connections, waiting for them in asyncio, and what channels are made of."""
