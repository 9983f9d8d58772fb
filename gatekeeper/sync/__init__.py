"""Keeps an index fresh: sources, refresher, snapshot, reports on usage.

It may import quoting, errors, keys, index and client.
"""
