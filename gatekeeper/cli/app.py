"""The app of all commands."""

import typer

from gatekeeper.cli.check import check
from gatekeeper.cli.demo import demo
from gatekeeper.cli.hub import hub
from gatekeeper.cli.keys import keys
from gatekeeper.cli.lint import lint

__all__ = ("app",)

app = typer.Typer(
    name="gatekeeper",
    help="Decide which pages may use a client key, and manage keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, check, lint):
    app.command()(command)
app.add_typer(keys, name="keys")
app.add_typer(hub, name="hub")
