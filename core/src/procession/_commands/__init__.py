"""The command line, and what each command is made of."""
