"""The reference hub: widget keys over HTTP, in SQLite or PostgreSQL. It may import errors, matching and keys.

A request walks endpoints.py -> bearer.py (whose token?) -> bodies.py (what does it ask for?) -> store.py -> tables.py;
every refusal on the way is a Problem (problems.py). Plaintexts are born in minting.py and live in one answer only.
database.py gives transactions to the stores, on the engines of sqlite.py or postgres.py, once migrations/ has been there.
"""

from importlib.util import find_spec

# SQLAlchemy looks for greenlet and aiosqlite only when it makes an engine, which is too late to say what to install.
if any(find_spec(needed) is None for needed in ("sqlalchemy", "greenlet", "aiosqlite", "alembic")):
    _missing = "gatekeeper.hub needs the extra `hub`: pip install 'widget-gatekeeper[hub]'"
    raise ImportError(_missing)

from gatekeeper.hub.app import Hub, create_hub, migrate
from gatekeeper.hub.tokens import TokenRow

__all__ = ("Hub", "TokenRow", "create_hub", "migrate")
