"""Properties of every entry and every origin."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper import Allowlist, InvalidEntry, Origin
from gatekeeper.errors import InvalidOrigin
from gatekeeper.matching.pattern import MAX_ENTRY_LENGTH, Pattern

from . import oracle, strategies

pytestmark = pytest.mark.slow

MANY = settings(max_examples=300, deadline=None)
SOME = settings(max_examples=120, deadline=None)
ENTRY_LISTS = st.lists(strategies.ascii_entries(), max_size=5)
ANY_ENTRY_LISTS = st.lists(strategies.any_entries(), max_size=5)
LISTS_WITH_A_MATCH = strategies.good_origins().flatmap(
    lambda origin: st.tuples(
        st.builds(
            lambda before, fitting, after: [*before, fitting, *after],
            st.lists(strategies.ascii_entries(), max_size=2),
            strategies.entries_for(origin),
            st.lists(strategies.ascii_entries(), max_size=2),
        ),
        st.just(origin),
    ),
)
REFERERS = st.builds("".join, st.tuples(strategies.origins(), st.one_of(st.just(""), strategies.ANY_TEXT)))
REFERER_ENDS = ("", "/", "?", "#", "\\")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def parse_or_none(value: str | bytes) -> Origin | None:
    """Parse an Origin header. Return None if it is refused, which must have a reason."""
    return _or_none(Origin.parse, value)


def referer_or_none(value: str | bytes) -> Origin | None:
    """Parse a Referer header. Return None if it is refused, which must have a reason."""
    return _or_none(Origin.from_referer, value)


def _or_none(parse: Callable[[str | bytes], Origin], value: str | bytes) -> Origin | None:
    try:
        return parse(value)
    except InvalidOrigin as refusal:
        reason = refusal.reason
    assert reason
    return None


def allowed_alone(entry: str, origin: str) -> bool:
    """Whether a list of only this entry allows the origin."""
    return Allowlist.parse([entry]).allows(origin)


@MANY
@given(entries=ENTRY_LISTS, origin=strategies.origins())
def test_the_oracle_agrees_on_any_entries_and_any_origin(entries: list[str], origin: str) -> None:
    """Exactly the origins that the naive reading allows are allowed."""
    assert Allowlist.parse(entries).allows(origin) is oracle.allows(entries, origin)


@MANY
@given(case=LISTS_WITH_A_MATCH)
def test_the_oracle_agrees_if_an_entry_was_written_for_the_origin(case: tuple[list[str], str]) -> None:
    """The entries around it make no difference."""
    entries, origin = case
    assert Allowlist.parse(entries).allows(origin) is oracle.allows(entries, origin)


@settings(max_examples=1000, deadline=None)
@given(entry=strategies.any_entries().filter(lambda entry: len(entry) < MAX_ENTRY_LENGTH))
def test_the_fast_path_for_plain_entries_agrees_with_the_full_parser(entry: str) -> None:
    """An entry with a space before it, which is normalised away, takes the full parser."""

    def read(text: str) -> Pattern | tuple[str, str]:
        try:
            return Pattern.parse(text)
        except InvalidEntry as error:
            return error.reason, error.hint

    assert read(entry) == read(f" {entry}")


@MANY
@given(entry=strategies.ascii_entries())
def test_an_entry_is_accepted_exactly_when_the_oracle_reads_it(entry: str) -> None:
    """Also if no origin could show the difference."""
    accepted = bool(Allowlist.parse([entry]).patterns)
    assert accepted is (oracle.read_entry(entry) is not None)


@MANY
@given(case=LISTS_WITH_A_MATCH)
def test_neither_order_nor_other_entries_change_a_decision(case: tuple[list[str], str]) -> None:
    """A list allows an origin if any one entry does."""
    entries, origin = case
    together = Allowlist.parse(entries).allows(origin)
    assert together is any(allowed_alone(entry, origin) for entry in entries)
    assert together is Allowlist.parse(entries[::-1]).allows(origin)


@MANY
@given(case=LISTS_WITH_A_MATCH)
def test_match_names_an_entry_that_alone_allows_the_origin(case: tuple[list[str], str]) -> None:
    """It names an entry of the list, as written."""
    entries, origin = case
    allowlist = Allowlist.parse(entries)
    matched = allowlist.match(origin)
    assert (matched is not None) is allowlist.allows(origin)
    assert matched is None or (matched in entries and allowed_alone(matched, origin))


@MANY
@given(origin=strategies.good_origins(), entries=ENTRY_LISTS)
def test_an_origin_and_its_text_get_the_same_answer(origin: str, entries: list[str]) -> None:
    """That holds for `allows` and for `match`."""
    allowlist = Allowlist.parse(entries)
    parsed = Origin.parse(origin)
    assert allowlist.allows(parsed) is allowlist.allows(origin)
    assert allowlist.match(parsed) == allowlist.match(origin)


@SOME
@given(case=LISTS_WITH_A_MATCH)
def test_neighbours_of_an_allowed_origin_are_decided_on_their_own(case: tuple[list[str], str]) -> None:
    """None is allowed just because it looks like an allowed one."""
    entries, origin = case
    allowlist = Allowlist.parse(entries)
    for neighbour in strategies.neighbours(origin):
        assert allowlist.allows(neighbour) is oracle.allows(entries, neighbour), neighbour


@SOME
@given(scheme=st.sampled_from(["", "https://", "*."]), name=st.sampled_from(strategies.LOOK_ALIKES))
def test_a_look_alike_entry_never_allows_the_ascii_host(scheme: str, name: str) -> None:
    """An entry with a Cyrillic, Greek or accented letter names another host."""
    allowlist = Allowlist.parse([scheme + name])
    for host in strategies.NAMES:
        assert not allowlist.allows(f"https://{host}")
        assert not allowlist.allows(f"http://{host}")


@MANY
@given(origin=strategies.app_origins(), entries=ENTRY_LISTS)
def test_only_the_exact_entry_allows_an_app(origin: str, entries: list[str]) -> None:
    """Whatever else is listed. Its letter case and one slash at its end do not matter."""
    allowlist = Allowlist.parse(entries)
    assert allowlist.allows(origin) is (origin in allowlist.patterns)
    for written in (origin, origin.upper(), f" {origin.title()}/\t"):
        alone = Allowlist.parse([written])
        assert alone.match(origin) == written
        assert not any(alone.allows(neighbour) for neighbour in strategies.neighbours(origin) if neighbour != origin)


@MANY
@given(entries=ANY_ENTRY_LISTS)
def test_normalising_patterns_is_idempotent(entries: list[str]) -> None:
    """Parsing the patterns as entries gives the same patterns and rejects none."""
    patterns = Allowlist.parse(entries).patterns
    again = Allowlist.parse(patterns)
    assert again.patterns == patterns
    assert again.rejected == ()


@SOME
@given(case=LISTS_WITH_A_MATCH)
def test_normalised_patterns_allow_what_the_entries_allow(case: tuple[list[str], str]) -> None:
    """They agree on the origin and on all of its neighbours."""
    entries, origin = case
    written = Allowlist.parse(entries)
    normalised = Allowlist.parse(written.patterns)
    for seen in [origin, *strategies.neighbours(origin)]:
        assert normalised.allows(seen) is written.allows(seen), seen


@MANY
@given(entries=ANY_ENTRY_LISTS)
def test_every_entry_is_accounted_for(entries: list[str]) -> None:
    """It is accepted, a duplicate, or rejected with reason and hint."""
    allowlist = Allowlist.parse(entries)
    accepted: list[str] = []
    rejected: set[str] = set()
    for entry in entries:
        alone = Allowlist.parse([entry])
        assert len(alone.patterns) + len(alone.rejected) == 1
        accepted += [pattern for pattern in alone.patterns if pattern not in accepted]
        rejected |= {refused.entry for refused in alone.rejected}
    assert allowlist.patterns == tuple(accepted)
    assert {refused.entry for refused in allowlist.rejected} == rejected
    assert all(refused.reason and refused.hint for refused in allowlist.rejected)


@settings(max_examples=30, deadline=None)
@given(filler=st.sampled_from(["acme.com", "bad entry", ""]), count=st.integers(97, 103))
def test_entries_beyond_the_hundredth_are_rejected(filler: str, count: int) -> None:
    """Accepted and rejected entries both count. The rest is reported."""
    entries = [filler and f"{filler}:{number}" for number in range(1, count + 1)] + ["https://last.test"]
    allowlist = Allowlist.parse(entries)
    assert allowlist.allows("https://last.test") is oracle.allows(entries, "https://last.test")
    assert allowlist.allows("https://last.test") is (count < oracle.MOST_ENTRIES)
    assert ("https://last.test" in {refused.entry for refused in allowlist.rejected}) is (count >= oracle.MOST_ENTRIES)


@MANY
@given(value=strategies.origins())
def test_origins_are_parsed_exactly_as_the_oracle_reads_them(value: str) -> None:
    """An accepted header is unchanged by a round trip."""
    origin = parse_or_none(value)
    expected = oracle.read_origin(value)
    assert (origin is not None) is (expected is not None)
    if origin is not None and expected is not None:
        scheme, host, port = expected
        assert (origin.scheme, origin.host.strip("[]"), origin.port) == (scheme, host.strip("[]"), port)
        assert str(origin) == value


@SOME
@given(origin=strategies.good_origins())
def test_neighbours_of_an_origin_are_parsed_as_the_oracle_reads_them(origin: str) -> None:
    """Accepted neighbours are unchanged by a round trip."""
    for neighbour in strategies.neighbours(origin):
        parsed = parse_or_none(neighbour)
        assert (parsed is not None) is (oracle.read_origin(neighbour) is not None), neighbour
        assert parsed is None or str(parsed) == neighbour


@MANY
@given(value=strategies.origins())
def test_bytes_and_text_are_parsed_alike(value: str) -> None:
    """Both give equal origins, or both give none."""
    raw = value.encode("utf-8", "surrogatepass")
    assert parse_or_none(raw) == parse_or_none(value)
    assert referer_or_none(raw) == referer_or_none(value)


@MANY
@given(value=st.one_of(strategies.ANY_TEXT, strategies.ANY_BYTES))
def test_arbitrary_headers_raise_nothing_but_invalid_origin(value: str | bytes) -> None:
    """Both parsers return an origin or raise InvalidOrigin with a reason."""
    for start in ("", "https://", "http://[", "https://acme.com:", "capacitor://"):
        glued = start + value if isinstance(value, str) else start.encode() + value
        parse_or_none(glued)
        referer_or_none(glued)


@MANY
@given(entries=ANY_ENTRY_LISTS, origin=st.one_of(strategies.ANY_TEXT, strategies.origins()))
def test_allows_and_match_never_raise_and_agree(entries: list[str], origin: str) -> None:
    """An allowed origin is always a serialised one."""
    allowlist = Allowlist.parse(entries)
    assert allowlist.allows(origin) is (allowlist.match(origin) is not None)
    assert not allowlist.allows(origin) or oracle.read_origin(origin) is not None


@MANY
@given(origin=strategies.web_origins(), tail=st.sampled_from(strategies.PATH_TAILS))
def test_a_referer_gives_the_origin_before_its_path(origin: str, tail: str) -> None:
    """In any letter case, and with the default port written out."""
    expected = Origin.parse(origin)
    assert Origin.from_referer(origin + tail) == expected
    assert Origin.from_referer(origin.upper() + tail) == expected
    if expected.port == oracle.DEFAULT_PORTS[expected.scheme]:
        assert Origin.from_referer(f"{origin}:{expected.port}{tail}") == expected


@MANY
@given(value=REFERERS)
def test_an_origin_from_a_referer_is_a_prefix_of_it(value: str) -> None:
    """It ends at a delimiter or at a written default port."""
    origin = referer_or_none(value)
    if origin is None:
        return
    lowered = value.lower()
    assert oracle.read_origin(str(origin)) is not None
    assert lowered.startswith(str(origin))
    rest = lowered.removeprefix(str(origin))
    assert rest[:1] in REFERER_ENDS or rest.removeprefix(DEFAULT_PORTS[origin.scheme])[:1] in REFERER_ENDS
