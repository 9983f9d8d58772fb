"""Which pages an owner allows: origins, entries, allowlists.

No IO, no clock. The package imports errors only.
"""
