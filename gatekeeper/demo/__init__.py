"""The demo: a hub, a guarded widget service and a customer's site, in one process. It may import everything but cli.

A page of site.py loads assets/widget.js from widget.py, which a gate guards; the gate's keys come from a real hub, over
real sockets (servers.py). running.py puts them together, self_test.py asks them everything that the README promises.
"""

from importlib.util import find_spec

if any(find_spec(needed) is None for needed in ("uvicorn", "websockets", "wsproto", "sqlalchemy", "aiosqlite")):
    _missing = "the demo needs the extra `demo`: pip install 'widget-gatekeeper[demo]'"
    raise ImportError(_missing)

from gatekeeper.demo.running import Demo, running_demo
from gatekeeper.demo.self_test import self_test

__all__ = ("Demo", "running_demo", "self_test")
