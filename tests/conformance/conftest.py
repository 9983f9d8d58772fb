"""The table of all counts, at the end of the session."""

import pytest

from tests.conformance.corpora import Count

COUNTS = pytest.StashKey[list[Count]]()


@pytest.fixture
def counts(pytestconfig: pytest.Config) -> list[Count]:
    """The counts of this session."""
    return pytestconfig.stash.setdefault(COUNTS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the counts."""
    counts = config.stash.get(COUNTS, [])
    if not counts:
        return
    terminalreporter.section("conformance")
    terminalreporter.line("vectors  conform  differ")
    for count in counts:
        differ = sum(count.differing.values())
        terminalreporter.line(f"{count.total:7}  {count.conforming:7}  {differ:6}  {count.vectors}")
        for reason, number in count.differing.items():
            terminalreporter.line(f"{number:24}    {reason}")
        if count.unexplained:
            terminalreporter.line(f"{count.unexplained:24}    UNEXPLAINED", red=True)
    total = sum(count.total for count in counts)
    conforming = sum(count.conforming for count in counts)
    differing = sum(sum(count.differing.values()) for count in counts)
    terminalreporter.line(f"{total:7}  {conforming:7}  {differing:6}  in all")
