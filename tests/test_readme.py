"""What the READMEs and the other documents promise can be read off the code."""

import ast
import inspect
import logging
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gatekeeper
from gatekeeper import (
    Allowlist,
    AsyncHubClient,
    ConfigError,
    CorsPolicy,
    FileSource,
    Gatekeeper,
    GatekeeperMiddleware,
    HubClient,
    HubSource,
    Reason,
    guard,
)
from gatekeeper.testing import allow_all, frame_headers, gate_for, headers, query
from tests.support.examples import examples, imports_frameworks
from tests.test_house import PEOPLE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in (".", "gatekeeper/*", "benchmarks", ".github")
    for path in sorted(ROOT.glob(f"{folder}/*.md"))
}
EXAMPLES = [
    pytest.param(example, id=f"{name}: {number}")
    for name, text in DOCUMENTS.items()
    for number, (_, example) in enumerate(examples(text), start=1)
    if not imports_frameworks(example)  # those are served by tests/frameworks
]
# Examples that other examples import: they begin with the name of their file.
MODULES = {
    name: example
    for text in DOCUMENTS.values()
    for name, example in re.findall(r"```python\n# (\w+)\.py\b(.+?)```", text, flags=re.DOTALL)
}
CHANGELOG = DOCUMENTS[".github/CHANGELOG.md"]
ENTRIES = "| entry | allows |"
APPS = "| the page is in | it sends |"
MAX_LINES = 200


def table(text: str, head: str) -> str:
    """The table that begins with this line."""
    return head + text.partition(head)[2].partition("\n\n")[0]


def options(text: str, before: str, after: str = "\n## ") -> dict[str, object]:
    """The defaults in the table of options between two texts."""
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| ", text.partition(before)[2].partition(after)[0], flags=re.MULTILINE)
    return {name: ast.literal_eval(default) for name, default in rows}


def defaults(of: Callable[..., object]) -> dict[str, object]:
    """The defaults of a callable's arguments."""
    given = inspect.signature(of).parameters.values()
    return {each.name: each.default for each in given if each.default is not inspect.Parameter.empty}


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_two_commands_have_a_line_each() -> None:
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/gatekeeper demo",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ):
        assert f"\n{command}\n" in README


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "answer",
    [
        "An ASGI middleware",
        "## Why CORSMiddleware is not enough",
        "pip install widget-gatekeeper",
        "app = guard(",
        "app = GatekeeperMiddleware(",
        "**The hub is down:**",
        "**The hub is down at the start:**",
    ],
)
def test_the_first_questions_are_answered_early(answer: str) -> None:
    assert answer in "\n".join(README.splitlines()[:100])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_and_picture_exists(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / name).parent / path if path else ROOT / name
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


def test_the_longest_reference_begins_with_a_list_of_its_sections() -> None:
    head, *sections = DOCUMENTS["gatekeeper/web/README.md"].split("\n## ")
    assert re.findall(r"\[([^\]]+)\]\(#", head) == [section.partition("\n")[0] for section in sections]


def test_the_readme_has_pictures_and_links_every_document() -> None:
    assert "](.github/demo.png)" in README
    assert all(f"]({name})" in README for name in DOCUMENTS if name != "README.md")


def test_the_table_of_decisions_has_every_reason_in_order_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README, flags=re.MULTILINE)
    reasons = [(reason, status) for reason, status in rows if reason in set(Reason)]
    assert [reason for reason, _ in reasons] == [reason.value for reason in Reason]
    assert {reason: status for reason, status in reasons if reason != "allowed"} == {
        reason.value: str(reason.status) for reason in Reason if reason is not Reason.ALLOWED
    }


def test_every_entry_of_the_table_of_entries_is_accepted() -> None:
    rows = [line.split("|")[1] for line in table(README, ENTRIES).splitlines()]
    entries = [entry for row in rows for entry in re.findall(r"`([^`]+)`", row)]
    assert len(entries) == 10
    assert Allowlist.parse(entries).rejected == ()


def test_each_origin_in_the_table_of_apps_is_allowed_by_its_own_entry_only() -> None:
    rows = [line.split("|")[2:4] for line in table(DOCUMENTS["gatekeeper/matching/README.md"], APPS).splitlines()]
    origins = {origin for cells in rows for origin in re.findall(r"`(\w[\w-]*://[^`]+)`", "".join(cells))}
    assert len(origins) > 15
    for origin in origins:
        allowlist = Allowlist.parse([origin])
        assert allowlist.patterns == (origin,)
        assert [other for other in origins if allowlist.allows(other)] == [origin]


def test_the_table_of_entries_is_the_same_in_the_reference() -> None:
    assert table(README, ENTRIES) == table(DOCUMENTS["gatekeeper/matching/README.md"], ENTRIES)


def test_the_example_of_mounting_is_short() -> None:
    example = README.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


@pytest.fixture
def log_level() -> Iterator[None]:
    """Undo what an example sets for the log."""
    logger = logging.getLogger("gatekeeper")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("log_level")
@pytest.mark.filterwarnings("ignore:Using .httpx. with .starlette.testclient.")  # starlette prefers another package
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_runs(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests in examples are run, too."""
    compile(example, "an example", "exec")
    monkeypatch.setenv("HUB_URL", "https://hub.example")
    monkeypatch.setenv("HUB_TOKEN", "sk_live_acme_gatetoken")
    for name, text in MODULES.items():
        if f"\nfrom {name} import" in example:
            monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
            exec("#" + text, module.__dict__)  # the rest of the line with the name is a comment
    if "with HubClient(" in example:
        # The example creates a key, and there is no such hub.
        example = "\n".join(re.findall(r"^from .*$", example, flags=re.MULTILINE))
    names: dict[str, Any] = {}
    exec(example.replace("…", "x"), names)  # no header can carry the ellipsis of a token
    if "\napp = guard(" in example:
        with pytest.raises(ConfigError, match="app is guarded already"):
            guard(names["app"], allow_all())
    elif "\napp = GatekeeperMiddleware(" in example:
        assert isinstance(names["app"], GatekeeperMiddleware)
    for name, test in names.items():
        if name.startswith("test_"):
            test()


def test_the_tables_of_options_have_every_option_with_its_default() -> None:
    web, sync = DOCUMENTS["gatekeeper/web/README.md"], DOCUMENTS["gatekeeper/sync/README.md"]
    assert options(web, "`guard(app, gate, …)` and", "`CorsPolicy(…)`") == defaults(guard)
    assert options(web, "`CorsPolicy(…)`", "`Gatekeeper(source") == defaults(CorsPolicy)
    seams = {"clock", "wall_clock", "sleep", "jitter"}
    expected = {name: default for name, default in defaults(Gatekeeper).items() if name not in seams}
    assert options(web, "`Gatekeeper(source") | options(sync, "`Gatekeeper(source") == expected
    assert options(sync, "`HubSource(", "`FileSource(") == defaults(HubSource)
    assert options(sync, "`FileSource(path") == defaults(FileSource)
    client = options(DOCUMENTS["gatekeeper/hub/README.md"], "`HubClient(base_url")
    for made in (HubClient, AsyncHubClient):
        assert client == {name: default for name, default in defaults(made).items() if name not in seams}


@pytest.mark.parametrize("of", [allow_all, frame_headers, gate_for, headers, query])
def test_the_functions_for_tests_have_the_defaults_that_their_table_gives(of: Callable[..., object]) -> None:
    (call,) = re.findall(rf"^\| `({of.__name__}\(.*?\))` \|", DOCUMENTS["gatekeeper/web/README.md"], flags=re.MULTILINE)
    parsed = ast.parse(call.replace("[…]", "()"), mode="eval").body
    assert isinstance(parsed, ast.Call)
    assert {each.arg: ast.literal_eval(each.value) for each in parsed.keywords} == defaults(of)


def test_the_middleware_has_the_options_of_guard_but_for_the_documentation() -> None:
    assert {**defaults(GatekeeperMiddleware), "exempt_docs": True} == defaults(guard)


def test_the_supported_versions_of_python_are_those_that_are_tested() -> None:
    security = DOCUMENTS[".github/SECURITY.md"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = re.findall(r"^\| (3\.\d+) \| \w+ \d{4} \|$", security, flags=re.MULTILINE)
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if " :: Python :: 3." in each]
    others = re.findall(r"^for version in (.+); do$", (ROOT / ".ci/run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == named == [project["requires-python"].removeprefix(">="), *others[0].split()]
    assert f"Python {rows[0]} also with the lowest" in security


def test_the_newest_minor_version_is_the_one_that_gets_fixes() -> None:
    supported = re.findall(r"^\| (\d+\.\d+)\.x \| yes \|$", DOCUMENTS[".github/SECURITY.md"], flags=re.MULTILINE)
    assert supported == [gatekeeper.__version__.rpartition(".")[0]]
    assert f"widget-gatekeeper~={supported[0]}.0" in DOCUMENTS["gatekeeper/sync/README.md"]


def test_the_changelog_names_the_version() -> None:
    assert re.search(rf"^## {re.escape(gatekeeper.__version__)} - \d{{4}}-\d\d-\d\d$", CHANGELOG, flags=re.MULTILINE)


def test_the_changelog_names_the_new_place_of_every_module_that_has_moved() -> None:
    rows = re.findall(r"^\| `(gatekeeper\.[\w.]+)` \| (.+) \|$", CHANGELOG, flags=re.MULTILINE)
    assert len(rows) > 20
    for _, places in rows:
        first, *others = re.findall(r"`([\w.]+)`", places)
        package = first.rpartition(".")[0]
        for module in (first, *(package + other if other.startswith(".") else other for other in others)):
            assert find_spec(module) is not None, module


def test_the_version_is_written_in_one_place() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert '[tool.hatch.version]\npath = "gatekeeper/version.py"' in project


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_uses_a_word_to_avoid(name: str) -> None:
    text = DOCUMENTS[name].lower()
    assert [word for word in ("whitelist", "blacklist", "@@") if word in text] == []
    assert PEOPLE.findall(text) == []
