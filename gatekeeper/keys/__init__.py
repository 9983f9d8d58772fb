"""Keys: the plaintext, the row, and the reading of rows.

The package may import quoting, errors and matching.
"""
