"""The reference hub: widget keys over HTTP, in SQLite or PostgreSQL.

It may import quoting, errors, matching and keys.

A request passes through endpoints.py -> bearer.py (authentication) -> bodies.py (validation) -> store.py,
refused.py or gates.py -> tables.py.
list_endpoint.py answers requests for the list. What has changed in it comes from deltas.py, which follows the log of
events.py.
Each refusal on the way is a Problem (problems.py). minting.py makes the plaintexts; each one is in a single answer.
database.py runs transactions for the stores, on the engines of sqlite.py or postgres.py and in the threads of pools.py. It
runs the migrations first.
backup.py and restore.py copy SQLite files.
waiters.py holds requests for the list until it changes. It learns of the changes of its process from store.py, and of those
of others from postgres_changes.py or sqlite_changes.py.
list_bodies.py reads whole lists into spools.py, for any number of clients. usage_writer.py, refused.py and gates.py write
reports through report_queue.py. turns.py and shares.py keep accounts from delaying one another; load_log.py tells of an
overload.
"""

from importlib.util import find_spec

if any(find_spec(needed) is None for needed in ("sqlalchemy", "alembic")):
    _missing = "gatekeeper.hub needs the extra `hub`: pip install 'widget-gatekeeper[hub]'"
    raise ImportError(_missing)

from gatekeeper.hub.app import Hub, create_hub, migrate
from gatekeeper.hub.tokens import TokenRow

__all__ = ("Hub", "TokenRow", "create_hub", "migrate")
