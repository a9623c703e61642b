"""The work that ``procession demo`` does.

It uses nothing of procession but what its users have, and most of it would run on
multiprocessing's contexts unchanged. What runs in children is in `counting` and `greeting`,
which import what they need and no more.
"""
