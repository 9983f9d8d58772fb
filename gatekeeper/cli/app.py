"""The commands, put together."""

import typer

from gatekeeper.cli.check import check
from gatekeeper.cli.demo import demo
from gatekeeper.cli.hub import hub
from gatekeeper.cli.keys import keys
from gatekeeper.cli.lint import lint

__all__ = ("app",)

app = typer.Typer(
    name="gatekeeper",
    help="May this page use this client key?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, check, lint):
    app.command()(command)
app.add_typer(keys, name="keys")
app.add_typer(hub, name="hub")
