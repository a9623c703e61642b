"""``procession doctor``: what of this environment procession needs, and what to do about it.

One module for each subject. A check takes a `Machine` and yields findings; `CHECKS` lists them.
"""
