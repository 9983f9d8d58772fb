"""gatekeeper keys: manage the widget keys of an account."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.markup import escape

from gatekeeper.cli.connection import with_client
from gatekeeper.cli.entries import absent, change_entries, normalised
from gatekeeper.cli.importing import import_keys
from gatekeeper.cli.key_filter import KeyFilter, origin_of
from gatekeeper.cli.key_table import LEAST, key_table
from gatekeeper.cli.lint import explain
from gatekeeper.cli.lookup import fetch_keys, find_one, require_key, whole_key
from gatekeeper.cli.output import (
    REFUSED,
    USAGE,
    as_moment,
    ask,
    console,
    legible,
    plain,
    print_columns,
    print_json,
    print_text,
    several,
    shown_once,
    stop,
)
from gatekeeper.cli.refused import show_refused
from gatekeeper.cli.trail import trail_lines
from gatekeeper.client import CreatedWidgetKey, HubClient
from gatekeeper.errors import HubNotFoundError
from gatekeeper.keys.client_key import mask
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.allowlist import Allowlist
from gatekeeper.quoting import masked, quoted

__all__ = ("keys",)

_WIDGET_URL = "https://widgets.example/widget.js"

keys = typer.Typer(help="Manage the widget keys of an account.", no_args_is_help=True)
keys.command("import")(import_keys)
keys.command("refused")(show_refused)


def _stripped(key: str) -> str:
    return key.strip()


Key = Annotated[
    str,
    typer.Argument(help="The key's last 8 characters, its id, or the whole key.", callback=_stripped, show_default=False),
]
Entries = Annotated[list[str], typer.Argument(help="Allowlist entries, such as '*.acme.com'.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@keys.command("list")
@with_client
def list_keys(
    client: HubClient,
    *,
    name: Annotated[str | None, typer.Option(help="Only keys with this text in their name, in any case.")] = None,
    allows: Annotated[str | None, typer.Option(metavar="PAGE", help="Only keys whose allowlist allows this page.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only enabled, or disabled, keys.")] = None,
    unused: Annotated[bool, typer.Option("--unused", help="Only keys that were never used.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Show ids, agents and last uses too, and fold nothing.")] = False,
    as_json: Json = False,
) -> None:
    """List the keys, oldest first."""
    chosen = KeyFilter(name=name, allows=None if allows is None else origin_of(allows), enabled=enabled, unused=unused)
    rows = fetch_keys(client)
    found = [row for row in rows if chosen.takes(row)]
    if as_json:
        print_json(found)
    elif found:
        print_columns(key_table(found, wide=wide, accounts=client.account is None), foldable=LEAST, fold=not wide)
    if chosen != KeyFilter():
        console(stderr=True).print(f"{len(found)} of {several(len(rows), 'key')} matched")
    elif not rows:
        console(stderr=True).print("no account has a key" if client.account is None else "the account has no keys")


@keys.command()
@with_client
def create(
    client: HubClient,
    *,
    name: Annotated[str, typer.Argument(help="The key's name.", show_default=False)],
    allow: Annotated[list[str] | None, typer.Option(help="An allowlist entry; repeat for more.")] = None,
    agent_id: Annotated[str | None, typer.Option("--agent", help="The agent to pin it to.")] = None,
    widget_url: Annotated[
        str, typer.Option(envvar="GATEKEEPER_WIDGET_URL", help="The URL of the widget's script.")
    ] = _WIDGET_URL,
    as_json: Json = False,
) -> None:
    """Mint a key, and print the script tag to paste."""
    entries = allow or []
    _require_entries(entries, entries)
    created = client.widget_keys.create(name, domain_allowlist=entries, agent_id=agent_id)
    lost = f"the key {plain(created.id)} was minted but not shown; delete it: gatekeeper keys delete {plain(created.id)}"
    with shown_once(lambda: lost):
        if as_json:
            print_json(created)
        else:
            for line in (*_describe(created), *_script_tag(created, widget_url)):
                console().print(line)
    console(stderr=True).print("The key will not be shown again.")


@keys.command()
@with_client
def show(client: HubClient, *, key: Key, as_json: Json = False) -> None:
    """Show a key, and what its allowlist means."""
    row = require_key(client, key)
    if as_json:
        print_json(row)
        return
    for line in (*_describe(row), *explain(row.domain_allowlist, Allowlist.parse(row.domain_allowlist))):
        console().print(line)


@keys.command()
@with_client
def allow(client: HubClient, *, key: Key, entries: Entries, as_json: Json = False) -> None:
    """Add entries to the allowlist of a key."""
    row = require_key(client, key)
    new = absent(entries, row)
    _require_entries(new, [*row.domain_allowlist, *new])

    def with_new(present: WidgetKey) -> list[str]:
        return [*present.domain_allowlist, *absent(new, present)]

    _print_changed(change_entries(client, row, with_new) if new else row, as_json=as_json)


@keys.command()
@with_client
def disallow(client: HubClient, *, key: Key, entries: Entries, yes: Yes = False, as_json: Json = False) -> None:
    """Remove entries from the allowlist of a key."""
    row = require_key(client, key)
    unwanted = {normalised(entry) for entry in entries}
    unknown = unwanted - {normalised(entry) for entry in row.domain_allowlist}
    if unknown:
        listed = ", ".join(map(plain, row.domain_allowlist)) or "none"
        stop(USAGE, f"the key's allowlist has no {', '.join(map(plain, sorted(unknown)))}; its entries are: {listed}")

    def left(present: WidgetKey) -> list[str]:
        return [entry for entry in present.domain_allowlist if normalised(entry) not in unwanted]

    blocked = "" if left(row) else " No entry is left, which blocks the key."
    ask(f"Remove {', '.join(map(plain, sorted(unwanted)))} from the allowlist of {_label(row)}?{blocked}", yes=yes)
    _print_changed(change_entries(client, row, left), as_json=as_json)


@keys.command()
@with_client
def rename(
    client: HubClient,
    *,
    key: Key,
    name: Annotated[str, typer.Argument(help="The new name.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Give a key another name."""
    _print_changed(client.widget_keys.update(require_key(client, key).id, name=name), as_json=as_json)


@keys.command()
@with_client
def pin(
    client: HubClient,
    *,
    key: Key,
    agent_id: Annotated[str, typer.Argument(help="The agent's id.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Pin a key to an agent, whatever agent the page names."""
    _print_changed(client.widget_keys.update(require_key(client, key).id, agent_id=agent_id), as_json=as_json)


@keys.command()
@with_client
def unpin(client: HubClient, *, key: Key, as_json: Json = False) -> None:
    """Let the page name the agent again."""
    _print_changed(client.widget_keys.update(require_key(client, key).id, agent_id=None), as_json=as_json)


@keys.command()
@with_client
def disable(client: HubClient, *, key: Key, yes: Yes = False, as_json: Json = False) -> None:
    """Revoke a key until it is enabled again."""
    row = require_key(client, key)
    ask(f"Disable {_label(row)}? Every page with this key loses its widget.", yes=yes)
    _print_changed(client.widget_keys.update(row.id, disabled=True), as_json=as_json)


@keys.command()
@with_client
def enable(client: HubClient, *, key: Key, as_json: Json = False) -> None:
    """Enable a disabled key."""
    _print_changed(client.widget_keys.update(require_key(client, key).id, disabled=False), as_json=as_json)


@keys.command()
@with_client
def delete(client: HubClient, *, key: Key, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a key if it was never used, otherwise disable it."""
    row = require_key(client, key)
    ask(f"Delete {_label(row)}? It cannot be restored.", yes=yes)
    kept = client.widget_keys.delete(row.id)
    if as_json:
        print_json(kept)
    elif kept is None:
        console().print(f"{escape(_label(row))} is deleted; its events stay, by its id {legible(row.id)}")
    else:
        console().print(f"{escape(_label(row))} was used before, so it is disabled and its row stays")


@keys.command()
@with_client
def events(client: HubClient, *, key: Key, as_json: Json = False) -> None:
    """Show the events of a key, even after its deletion."""
    row = find_one(fetch_keys(client), key, account=client.account)
    # The list has no deleted key. A hub may know it by its last 8 characters, and every hub by its id.
    whole = whole_key(key)
    named = row.id if row is not None else key.removeprefix(mask("")) if whole is None else whole.last8
    if row is None and masked(named) != named:
        # Servers and proxies log URLs.
        stop(
            USAGE,
            f"{quoted(key)} has a secret in it, so the hub was not asked for its events: "
            "name the key by its last 8 characters, its id, or the whole key and nothing else",
        )
    try:
        trail = client.widget_keys.events(named)
    except HubNotFoundError:
        if row is not None:
            raise
        stop(
            REFUSED,
            f"the account has no key {quoted(key)}, and the hub no events of it; "
            "if it was deleted, name it by its id, which `gatekeeper keys delete` printed",
        )
    if as_json:
        print_json(trail)
        return
    for line in trail_lines(trail):
        print_text(line)


def _require_entries(entries: list[str], together: list[str]) -> None:
    """Print remarks about entries, and exit if one is rejected."""
    allowlist = Allowlist.parse(together)
    noted = {each.entry for each in allowlist.rejected}
    noted |= {each.entry for each in allowlist.warnings} | {each.entry for each in allowlist.suggestions}
    for line in explain([entry for entry in entries if entry in noted], allowlist) if noted else ():
        console(stderr=True).print(line)
    if {each.entry for each in allowlist.rejected} & set(entries):
        stop(USAGE, "nothing was sent, because of the rejected entries")


def _print_changed(row: WidgetKey, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    for line in _describe(row):
        console().print(line)


def _describe(row: WidgetKey) -> Iterator[str]:
    yield f"[bold]{mask(row.last8)}[/] {legible(row.name or '')}"
    yield f"  id         {legible(row.id)}"
    if row.account is not None:
        yield f"  account    {legible(row.account)}"
    yield f"  state      {_state(row)}"
    if row.agent_id is not None:
        yield f"  agent      {legible(row.agent_id)}"
    yield f"  allowlist  {', '.join(map(legible, row.domain_allowlist)) or '[yellow]none: no page can use the key[/]'}"
    created, used = as_moment(row.created_at or "unknown"), as_moment(row.last_used_at or "never")
    yield f"  created    {legible(created)}, last used {legible(used)}"


def _script_tag(created: CreatedWidgetKey, widget_url: str) -> Iterator[str]:
    yield ""
    yield "Paste this into the pages:"
    tag = f'<script src="{widget_url}" data-client-key="{created.public_key}" async></script>'
    yield f"  {escape(tag)}"
    if widget_url == _WIDGET_URL:
        yield "The address of the script is an example: --widget-url takes that of your widget."
    yield ""


def _state(row: WidgetKey) -> str:
    return f"[red]disabled[/] since {legible(as_moment(str(row.disabled_at)))}" if row.disabled else "[green]enabled[/]"


def _label(row: WidgetKey) -> str:
    return f"the key {mask(row.last8)} ({plain(row.name or row.id)})"
