"""What the wheel must do where nothing but the core's requirements is installed. Run by an interpreter that has it."""

from importlib.util import find_spec
from pathlib import Path

import gatekeeper
from gatekeeper import Gatekeeper
from gatekeeper.testing import client_key, gate_for

SOURCE = Path(__file__).parents[1] / "gatekeeper"
INSTALLED = Path(gatekeeper.__file__).parent
OF_EXTRAS = ("alembic", "fastapi", "prometheus_client", "rich", "sqlalchemy", "typer", "uvicorn", "websockets", "wsproto")

assert INSTALLED != SOURCE, "the source tree is on the path"

files = {path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
lacking = sorted(str(file) for file in files if not (INSTALLED / file).is_file())
assert not lacking, f"the wheel lacks {', '.join(lacking)}"

installed = [name for name in OF_EXTRAS if find_spec(name)]
assert not installed, f"the core installs {', '.join(installed)}"

gate = Gatekeeper.from_rows([{"id": "wk_1", "name": "Shop", "last8": "abcd1234", "domain_allowlist": ["*.acme.com"]}])
for page, reason in (("https://shop.acme.com", "allowed"), ("https://evil.test", "origin_not_allowed")):
    decision = gate.decide("pk_live_acme_0000abcd1234", page)
    assert decision.reason.value == reason, decision
assert gate_for(allow=["https://shop.acme.com"]).decide(client_key(), "https://shop.acme.com").allowed
