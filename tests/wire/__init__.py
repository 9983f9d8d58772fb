"""Handwritten bytes, sent to real servers, and the decisions on them."""
