"""The command line. It may import everything above it, the hub and the demo included.

One file for each command (demo, check, lint) or group of commands (keys, hub); app.py puts them together. output.py
prints and ends, connection.py makes the client that the options name. Exit codes: 0 yes, 1 no or refused, 2 usage, 3 the
hub cannot be reached.
"""

from importlib.util import find_spec

if any(find_spec(needed) is None for needed in ("typer", "rich")):
    _missing = "the command line needs the extra `cli`: pip install 'widget-gatekeeper[cli]'"
    raise ImportError(_missing)

from gatekeeper.cli.app import app

__all__ = ("app",)
