"""What ``procession port`` is made of. Nobody else imports it.

`names` knows every name of multiprocessing, `meanings` what a program's expressions stand for,
`program` what it does with them.
"""
