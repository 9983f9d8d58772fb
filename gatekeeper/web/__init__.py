"""HTTP and WebSocket: reads requests, and turns decisions into responses.

It may import errors, matching, keys and gate.
"""
