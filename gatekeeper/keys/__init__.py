"""What a key is: its plaintext, its row in the list, and how rows are read.

The package may import errors and matching.
"""
