"""Benchmarks of gatekeeper beside its alternatives. See README.md here."""

from importlib.util import find_spec

_NEEDED = ("asgi_cors", "granian", "httptools", "hypercorn", "matplotlib", "redis", "rich", "uvicorn", "uvloop")

if _missing := [package for package in _NEEDED if find_spec(package) is None]:
    raise ImportError(f"the benchmarks need {', '.join(_missing)}: pip install -e '.[bench]'")
