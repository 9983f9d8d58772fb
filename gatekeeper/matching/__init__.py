"""Which pages an owner allows: origins, entries, allowlists.

No IO and no clock. It imports errors, and nothing else of the package.
"""
