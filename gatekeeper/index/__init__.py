"""Every key in memory, and the changes that a list makes.

No IO and no clock. It may import errors, matching and keys.
"""
