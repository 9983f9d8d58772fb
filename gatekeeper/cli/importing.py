"""gatekeeper keys import: mint a key for each CSV record."""

import shlex
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape
from rich.progress import track

from gatekeeper.cli.connection import given_options, naming_proxies, with_client, with_options
from gatekeeper.cli.drafts import Draft, read_drafts
from gatekeeper.cli.keys_file import KeysFile, MintedKey, read_minted
from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, plain, several, stop, warn
from gatekeeper.client import HubClient
from gatekeeper.errors import (
    ConfigError,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubPermissionError,
    HubProtocolError,
)

__all__ = ("import_keys",)

SIGNALLED = 128  # plus the signal's number: the exit code in a shell


@with_client
def import_keys(
    client: HubClient,
    *,
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV: name, domain_allowlist (spaces or ; between entries), agent_id.")],
    keys_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write the keys; by default beside the file.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an earlier import of the file.")] = False,
) -> None:
    """Mint a key for each line. Only you can read the file of keys."""
    target = keys_file or file.with_suffix(".keys.csv")
    again = _again(context, file, target)
    drafts, bad = read_drafts(file)
    if resume:
        drafts, changed, unused = _without_minted(drafts, read_minted(target))
        bad += changed
        for key in unused:
            warn(f"the key {plain(key.id)} ({plain(key.content.name)}) in {target} has no line in {file} any more")
    for problem in bad:
        warn(problem)
    minted = failed = 0
    with KeysFile(target, resume=resume) as keys, _signals() as received:
        for draft in track(drafts, "minting", console=console(stderr=True), disable=not drafts):
            if received:
                break
            name, entries, agent_id = draft.content
            try:
                with naming_proxies(context.params["proxy"]):
                    created = client.widget_keys.create(name, domain_allowlist=entries, agent_id=agent_id)
            except HubInvalidRequestError as error:
                warn(f"line {draft.line}: {with_options(error)}")
                failed += 1
                continue
            except (ConfigError, HubError) as error:
                _give_up(draft, error, f"Minted and written to {target}: {several(minted, 'key')}.", again)
            keys.add(draft, created)
            minted += 1
    left = len(drafts) - minted - failed
    if received and left:
        done = f"{several(minted, 'key')} minted and written to {target}, {several(left, 'line')} left"
        stop(SIGNALLED + received[0], f"stopped by {received[0].name}: {done}. To continue{again}")
    console().print(escape(f"{several(minted, 'key')} minted and written to {target}, which only you can read"))
    if bad or failed:
        stop(REFUSED, f"{several(len(bad) + failed, 'line')} failed: correct them in place and run{again}")


@contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT and SIGTERM, so that no key is lost between the hub and the disk."""
    received: list[signal.Signals] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: handler for each, handler in before.items() if handler is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, receive)
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _without_minted(drafts: list[Draft], minted: list[MintedKey]) -> tuple[list[Draft], list[str], list[MintedKey]]:
    """Leave out what an earlier import has minted.

    Args:
        drafts: the records of the file, which may have moved or changed since.
        minted: the keys of the earlier import.

    Returns:
        The records without a key, a sentence about each whose key was minted with other fields, and the keys that have no
        record any more.
    """
    here = Counter(draft.content for draft in drafts)
    unused: defaultdict[str, list[MintedKey]] = defaultdict(list)
    done: Counter[object] = Counter()
    for key in minted:
        if done[key.content] < here[key.content]:
            done[key.content] += 1
        else:
            unused[key.content.name].append(key)
    without_key: list[Draft] = []
    changed: list[str] = []
    for draft in drafts:
        name = draft.content.name
        if done[draft.content]:
            done[draft.content] -= 1
        elif unused[name]:
            key_id = plain(unused[name].pop(0).id)
            changed.append(
                f"line {draft.line}: {name!r} has the key {key_id}, with other fields: change that key at the hub "
                "(`gatekeeper keys allow`, `disallow`, `pin`), or give the line another name"
            )
        else:
            without_key.append(draft)
    return without_key, changed, [key for keys in unused.values() for key in keys]


def _again(context: typer.Context, file: Path, target: Path) -> str:
    """The command that continues this import, after the options with secrets, which it lacks."""
    options, secret = given_options(context)
    besides = f", with your {' and '.join(secret)}" if secret else ""
    words = ("gatekeeper", "keys", "import", str(file), "--out", str(target), *options, "--resume")
    return f"{besides}: {shlex.join(words)}"


def _give_up(draft: Draft, error: Exception, done: str, again: str) -> NoReturn:
    refused = isinstance(error, HubAuthenticationError | HubPermissionError)
    code = REFUSED if refused else USAGE if isinstance(error, ConfigError | HubProtocolError) else UNREACHABLE
    unsure = "" if refused else f" Line {draft.line} may have its key: see `gatekeeper keys list`."
    stop(code, f"{with_options(error)}. {done}{unsure} To continue{again}")
