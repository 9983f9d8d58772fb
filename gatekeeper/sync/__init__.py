"""Keeps an index fresh: sources, refresher, snapshot, reports to the hub.

It may import quoting, version, errors, keys, index and client.
"""
