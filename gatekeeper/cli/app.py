"""The app of all commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from gatekeeper.cli.backup import backup, restore
from gatekeeper.cli.check import check
from gatekeeper.cli.demo import demo
from gatekeeper.cli.gates import list_gates
from gatekeeper.cli.hub import hub
from gatekeeper.cli.keys import keys
from gatekeeper.cli.lint import lint
from gatekeeper.cli.output import print_text

__all__ = ("app",)

app = typer.Typer(
    name="gatekeeper",
    help="Decide which pages may use a client key, and manage keys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, check, lint):
    app.command()(command)
app.command("gates")(list_gates)
hub.command()(backup)
hub.command()(restore)
app.add_typer(keys, name="keys")
app.add_typer(hub, name="hub")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        print_text(f"gatekeeper {version('widget-gatekeeper')}")
        raise typer.Exit


@app.callback()
def accept_options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options of the program itself."""
