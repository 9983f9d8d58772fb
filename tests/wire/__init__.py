"""Bytes written by hand, sent to real servers: what stands on the wire, and which decision it comes to."""
