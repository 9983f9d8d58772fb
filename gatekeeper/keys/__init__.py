"""Keys: the plaintext, the row, the reading of rows, and what gates report.

The package may import quoting, errors and matching.
"""
