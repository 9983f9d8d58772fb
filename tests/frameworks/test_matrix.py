"""The README has the table that the tests fill, and the examples that they serve."""

from pathlib import Path

from tests.frameworks.matrix import APPS, BEHAVIOURS, MOUNTED, NOTES, SERVERS, rendered
from tests.frameworks.serving import README
from tests.frameworks.test_served import CHECKS
from tests.support.examples import examples, imports_frameworks

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / README).read_text(encoding="utf-8")
BEGIN, END = "<!-- made by tests/frameworks/matrix.py -->\n\n", "\n\n<!-- end -->"


def test_the_readme_has_the_table_of_the_tests() -> None:
    assert TEXT.partition(BEGIN)[2].partition(END)[0] == rendered()


def test_every_behaviour_of_the_table_has_its_check() -> None:
    assert list(CHECKS) == list(BEHAVIOURS)


def test_every_note_applies_somewhere_and_not_everywhere() -> None:
    cells = [(each.name, server) for each in MOUNTED for server in SERVERS]
    assert all(0 < sum(note.applies(*cell) for cell in cells) < len(cells) for note in NOTES)


def test_every_app_serves_the_examples_of_its_rows() -> None:
    served = {app: (HERE / "apps" / f"{app}.py").read_text(encoding="utf-8") for app in APPS}
    assert [each.name for each in MOUNTED if f'names_of("{each.heading}")' not in served[each.app]] == []


def test_every_example_with_a_framework_is_served() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.rglob("*.py"))
    headings = [heading for heading, code in examples(TEXT) if imports_frameworks(code)]
    assert len(headings) > 10
    assert [each for each in headings if f'names_of("{each}"' not in tests and f'example("{each}")' not in tests] == []
