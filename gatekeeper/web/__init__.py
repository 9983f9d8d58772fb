"""HTTP and WebSocket: what a request says, and a decision as a response.

It may import errors, matching, keys and gate.
"""
