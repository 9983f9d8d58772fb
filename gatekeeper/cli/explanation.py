"""Explanation: a decision, with the facts that help to change it."""

from collections.abc import Iterator

import msgspec

from gatekeeper.cli.output import as_moment, legible
from gatekeeper.errors import InvalidEntry
from gatekeeper.gate.decisions import Decision, Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.keys.client_key import mask
from gatekeeper.matching.advice import RejectedEntry
from gatekeeper.matching.origins import Origin
from gatekeeper.matching.pattern import Pattern

__all__ = ("Explanation", "explain_decision", "problem_of_entry")


class Explanation(msgspec.Struct, frozen=True):
    """A decision, as `gatekeeper check --json` prints it.

    Attributes:
        allowed: whether the page may use the key.
        reason: why, as a word for programs.
        status: the status code that a gate answers.
        detail: what was seen and what to do, as a sentence or two.
        key_id: the id of the key's row; None if no row was found.
        last8: the last 8 characters of the key; None if none were given.
        name: the key's name.
        account: the account that the key's row names, if it names one.
        disabled_at: the time of the key's revocation.
        agent_id: the agent that the key is pinned to.
        origin: the page's origin; None if it is malformed or missing.
        matched: the entry, as written, that allows the page.
        nearest: for a page that is not allowed, the entries that are most similar, as written.
        add: the entry that would allow the page.
        rejected: the entries of the key that a gate ignores, each with the reason.
        candidates: for an ambiguous key, the ids of the rows that it may be.
        hint: what may be wrong with the arguments of the command.
    """

    allowed: bool
    reason: Reason
    status: int
    detail: str
    key_id: str | None = None
    last8: str | None = None
    name: str | None = None
    account: str | None = None
    disabled_at: object = None
    agent_id: str | None = None
    origin: str | None = None
    matched: str | None = None
    nearest: tuple[str, ...] = ()
    add: str | None = None
    rejected: tuple[RejectedEntry, ...] = ()
    candidates: tuple[str, ...] = ()
    hint: str | None = None

    def lines(self) -> Iterator[str]:
        """Yield lines of rich markup for a person."""
        yield "[bold green]allowed[/]" if self.allowed else f"[bold red]refused[/]  {self.reason} ({self.status})"
        yield f"  {legible(self.detail)}"
        if self.key_id is not None:
            yield from self._key_lines()
        if self.candidates:
            yield f"  keys     {', '.join(map(legible, self.candidates))}"
        if self.hint is not None:
            yield f"  [yellow]hint[/]     {legible(self.hint)}"

    def _key_lines(self) -> Iterator[str]:
        yield f"  key      {mask(self.last8 or '')} {legible(repr(self.name))}, id {legible(self.key_id or '')}"
        if self.account is not None:
            yield f"           of the account {legible(self.account)}"
        since = legible(as_moment(str(self.disabled_at)))
        yield f"           {'enabled' if self.disabled_at is None else f'disabled since {since}'}"
        if self.agent_id is not None:
            yield f"           pinned to agent {legible(self.agent_id)}"
        yield f"  page     {legible(self.origin or 'none')}"
        if self.matched is not None:
            yield f"  matched  {legible(self.matched)}"
        if self.reason is Reason.ORIGIN_NOT_ALLOWED:
            yield f"  nearest  {', '.join(map(legible, self.nearest)) or 'none of its entries is similar'}"
        if self.add is not None:
            yield f"  add      {legible(self.add)}"
        for entry in self.rejected:
            yield f"  [yellow]ignored[/]  {legible(entry.hint)}"


def explain_decision(
    decision: Decision, gate: Gatekeeper, *, candidates: tuple[str, ...] = (), hint: str | None = None
) -> Explanation:
    """Explain a decision of a gate.

    Args:
        decision: the decision.
        gate: the gate, which has the key's allowlist.
        candidates: for an ambiguous key, the ids of the rows that it may be.
        hint: what may be wrong with the arguments of the command.

    Returns:
        The explanation.
    """
    key = decision.key
    allowlist = None if key is None else gate.allowlist(key)
    nearest: tuple[str, ...] = ()
    if decision.reason is Reason.ORIGIN_NOT_ALLOWED and allowlist is not None and decision.origin is not None:
        nearest = allowlist.nearest(Origin.parse(decision.origin))
    problem = problem_of_entry(decision.add)
    return Explanation(
        allowed=decision.allowed,
        reason=decision.reason,
        status=decision.status,
        detail=decision.detail if problem is None else problem,
        key_id=None if key is None else key.id,
        last8=decision.last8,
        name=None if key is None else key.name,
        account=None if key is None else key.account,
        disabled_at=None if key is None else key.disabled_at,
        agent_id=decision.agent_id,
        origin=decision.origin,
        matched=decision.matched,
        nearest=nearest,
        add=decision.add if problem is None else None,
        rejected=() if allowlist is None else allowlist.rejected,
        candidates=candidates,
        hint=hint,
    )


def problem_of_entry(entry: str | None) -> str | None:
    """Say why no entry can allow a page.

    A gate advises entries without this check, which takes too long for requests. Browsers refuse such hosts anyway.

    Args:
        entry: the entry that a decision advises; None for none.

    Returns:
        A sentence; None if the entry is valid.
    """
    try:
        if entry is not None:
            Pattern.parse(entry)
    except InvalidEntry as error:
        return f"No entry can allow this page: {error}"
    return None
