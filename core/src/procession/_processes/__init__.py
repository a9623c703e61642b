"""The process as an object, and what a child runs first."""
