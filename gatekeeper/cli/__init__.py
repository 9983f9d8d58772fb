"""The command line. It may import all other packages, including hub and demo.

Each command (demo, check, lint, gates) and each group of commands (keys, hub) has a file, and app.py collects them. Some
commands of a group have files of their own: importing.py has `keys import`, with drafts.py for the file that it reads and
keys_file.py for the one that it writes; backup.py has `hub backup` and `hub restore`. output.py prints and exits, through
the standard streams of streams.py; connection.py makes the client from the options; lookup.py finds a key by what users
have. Exit codes: 0 yes, 1 no or refused, 2 usage or no output, 3 hub unreachable.
"""

from importlib.util import find_spec

if any(find_spec(needed) is None for needed in ("typer", "rich")):
    _missing = "the command line needs the extra `cli`: pip install 'widget-gatekeeper[cli]'"
    raise ImportError(_missing)

from gatekeeper.cli.app import app
from gatekeeper.cli.streams import run

__all__ = ("app", "run")
