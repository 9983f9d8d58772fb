"""Keeps an index fresh: sources, the refresher, the snapshot on disk, reports on usage.

It may import errors, keys, index and client.
"""
