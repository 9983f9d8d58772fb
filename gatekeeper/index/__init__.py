"""Every key in memory, and what a list changes in it.

No IO and no clock. It may import errors, matching and keys.
"""
