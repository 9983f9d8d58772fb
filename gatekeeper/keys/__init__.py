"""Keys: the plaintext, the row, its reading, and what gates report.

The package may import quoting, errors and matching.
"""
