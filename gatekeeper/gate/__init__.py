"""Decides whether a page may use a key, and remembers that. No HTTP.

It may import errors, matching, keys, index and sync.
"""
