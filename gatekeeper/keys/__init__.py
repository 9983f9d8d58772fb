"""What a key is: the plaintext that a page sends, a row of the list, and how rows are read.

It may import errors and matching.
"""
