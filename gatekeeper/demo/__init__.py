"""The demo: a hub, a guarded widget service, two customers' sites.

It may import everything except cli. All parts run in one process and talk over real sockets (servers.py). The pages of
site.py load assets/widget.js from widget.py, which is guarded by one gate. The gate reads the keys of both customers'
accounts from a real hub. running.py starts the parts, and self_test.py checks what the README promises.
"""

from importlib.util import find_spec

if any(find_spec(needed) is None for needed in ("uvicorn", "websockets", "wsproto", "sqlalchemy")):
    _missing = "the demo needs the extra `demo`: pip install 'widget-gatekeeper[demo]'"
    raise ImportError(_missing)

from gatekeeper.demo.running import Demo, OtherCustomer, running_demo
from gatekeeper.demo.self_test import self_test

__all__ = ("Demo", "OtherCustomer", "running_demo", "self_test")
