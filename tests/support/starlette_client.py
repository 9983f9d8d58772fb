"""Starlette's test client, without its warning that it prefers another package to httpx."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ("TestClient",)
