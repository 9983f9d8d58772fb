"""Decides whether a page may use a key, and remembers what it decided. No HTTP.

It may import errors, matching, keys, index and sync.
"""
