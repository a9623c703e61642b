"""Looking at a running program from outside: ``procession top`` and ``procession dump``.

Everything is read from ``/proc``; the program is asked nothing and has prepared nothing but name
tags (`procession._starting.name_tag`) and cards (`procession._mailboxes.card`). Linux only.
"""
