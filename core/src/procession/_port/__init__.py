"""What ``procession port`` is made of. Nobody else imports it.

`names` knows every name of multiprocessing, `program` what a program does with them.
"""
