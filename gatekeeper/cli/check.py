"""gatekeeper check: whether a page may use a key, and why."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gatekeeper.cli.connection import (
    AccountOption,
    CaFileOption,
    HubOption,
    ProxyOption,
    SuffixFieldOption,
    TokenOption,
    connect,
    with_options,
)
from gatekeeper.cli.explanation import Explanation, explain_decision
from gatekeeper.cli.lookup import find, find_one, whole_key
from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, print_json, stop, warn
from gatekeeper.cli.page_url import origin_at
from gatekeeper.client import account_of
from gatekeeper.errors import (
    ConfigError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidList,
    InvalidOrigin,
    SourceError,
)
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.keys.client_key import SUFFIX_LENGTH, mask, share_keys
from gatekeeper.keys.reader import RowReader
from gatekeeper.keys.slices import read_list
from gatekeeper.keys.widget_key import WidgetKey
from gatekeeper.matching.origins import Origin
from gatekeeper.sync.file_source import FileSource
from gatekeeper.sync.loading import MAX_REJECTED_SHARE

__all__ = ("check",)

_OTHER_DIGEST = "0" * 64  # of no client key


def check(
    key: Annotated[
        str, typer.Argument(help="The client key, pk_live_…, its last 8 characters, or its id.", show_default=False)
    ],
    origin: Annotated[str, typer.Argument(help="The origin or the URL of the page or the app.", show_default=False)],
    *,
    context: typer.Context,
    hub: HubOption = None,
    token: TokenOption = None,
    file: Annotated[Path | None, typer.Option(help="Read rows from a JSON file instead of a hub.")] = None,
    account: AccountOption = None,
    suffix_field: SuffixFieldOption = "last8",
    ca_file: CaFileOption = None,
    proxy: ProxyOption = None,
    https_only: Annotated[bool, typer.Option("--https-only", help="Decide like a gate with https_only=True.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decide like a gate, and explain the decision."""
    hub = _chosen_hub(context, hub, file)
    if (hub is None) == (file is None):
        stop(USAGE, "expected either a hub (--hub, or GATEKEEPER_HUB in the environment) or a file of rows (--file)")
    try:
        if file is not None:
            listing = FileSource(file).read()
            rows, rejected = read_list(RowReader(suffix_field), b"" if listing is None else listing[0])
        else:
            with connect(hub or "", token, account, suffix_field, ca_file, proxy) as client:
                listed = client.widget_keys.list()
                rows, rejected = list(listed), list(listed.rejected)
    except (HubTransportError, HubServerError, HubRateLimitedError) as error:
        stop(UNREACHABLE, with_options(error))
    except InvalidList as error:
        stop(USAGE, f"{file}: {error}")
    except (ConfigError, SourceError) as error:
        stop(USAGE, with_options(error))
    for problem in rejected:
        warn(f"left out: {with_options(problem)}")
    if len(rejected) > MAX_REJECTED_SHARE * (len(rows) + len(rejected)):
        warn("a gate rejects a list with so many bad rows and keeps the previous list")
    known_account = account or (account_of(token) if file is None and token else None)
    explanation = _explain(rows, key, origin, known_account, https_only=https_only)
    explanation = _with_whose_keys(explanation, known_account if file is None else None)
    if as_json:
        print_json(explanation)
    else:
        for line in explanation.lines():
            console().print(line)
    raise typer.Exit(0 if explanation.allowed else REFUSED)


def _chosen_hub(context: typer.Context, hub: str | None, file: Path | None) -> str | None:
    """The hub, unless a file is typed and the hub is in the environment."""
    source = context.get_parameter_source("hub")
    return None if file is not None and source is not None and source.name == "ENVIRONMENT" else hub


def _explain(rows: list[WidgetKey], key: str, page: str, account: str | None, *, https_only: bool) -> Explanation:
    # Users paste the URL of a page. A browser would send its origin.
    origin = _origin_at(page)
    sent = page if origin is None else str(origin)
    row = None if whole_key(key) else find_one(rows, key, account=account)
    if row is not None:
        # A gate sees a whole key. Any key with this end stands for the one of the row, so its digest and its account count
        # as none. Rows with another digest, or of an account that shares no keys with its own, cannot be meant.
        digests = {True: None, False: _OTHER_DIGEST}
        rows = [
            msgspec.structs.replace(each, account=None, key_sha256=digests[_share_keys(each, row, account)])
            for each in rows
            if each.last8 == row.last8
        ]
        account, key = None, f"pk_live_any_{row.last8}"
    gate = Gatekeeper.from_rows(rows, https_only=https_only, account=account)
    decision = gate.decide(key, sent)
    hint = None
    if decision.reason is Reason.KEY_MALFORMED:
        last8 = key.removeprefix(mask(""))
        if len(last8) == SUFFIX_LENGTH:
            decision = Decision(Reason.KEY_UNKNOWN, last8=last8, origin=decision.origin)
        else:
            hint = "it is not the id of a key, nor its last 8 characters, either"
    elif decision.reason is Reason.ORIGIN_MALFORMED and (named := _origin_at(f"https://{page}")) is not None:
        hint = f"name the page with its scheme, such as {named}"
    candidates = [each.id for each in find(rows, key, account=account)] if decision.reason is Reason.KEY_AMBIGUOUS else ()
    explanation = explain_decision(decision, gate, candidates=tuple(candidates), hint=hint)
    return explanation if row is None else msgspec.structs.replace(explanation, account=row.account)


def _with_whose_keys(explanation: Explanation, account: str | None) -> Explanation:
    """With a hint at the keys of other accounts, where the hub was asked for those of one."""
    if account is None or explanation.reason is not Reason.KEY_UNKNOWN:
        return explanation
    hint = f"only the keys of the account {account} were looked at: for others, use a token of theirs, or one for all"
    return msgspec.structs.replace(explanation, hint=hint)


def _share_keys(one: WidgetKey, other: WidgetKey, account: str | None) -> bool:
    """Whether one client key may be that of both rows, which end alike."""
    if one.key_sha256 != other.key_sha256:
        return False
    return account is not None or share_keys(one.account, other.account)


def _origin_at(address: str) -> Origin | None:
    try:
        return origin_at(address)
    except InvalidOrigin:
        return None
