"""What tests of procession and of its plugins are made of.

Nothing is imported here: `payloads` runs in children and stays slim, `leaks` runs in the test
process, and neither needs the other.
"""
