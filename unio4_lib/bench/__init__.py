"""How fast the parts are on this machine, beside what the machine could do and beside others' code."""
