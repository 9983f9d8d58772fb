"""Keeps an index fresh: sources, refresher, snapshot, reports to the hub.

It may import quoting, version, errors, matching, keys, index and client.
"""
