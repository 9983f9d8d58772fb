"""gatekeeper lint: its output and exit codes."""

import json
from pathlib import Path

from .support import ROWS, gatekeeper


def test_lint_explains_an_entry_and_its_normal_form() -> None:
    done = gatekeeper("lint", "HTTPS://Bücher.example:443/", "*.acme.com")
    assert done.returncode == 0
    assert "HTTPS://Bücher.example:443/ -> https://xn--bcher-kva.example" in done.stdout
    assert "every subdomain of acme.com (not acme.com itself)" in done.stdout
    assert "warning '*.acme.com' does not allow acme.com itself: add 'acme.com' if it should." in done.stdout


def test_lint_suggests_entries_that_are_often_forgotten() -> None:
    done = gatekeeper("lint", "acme.com")
    assert done.returncode == 0
    assert "tip 'acme.com' allows no subdomain: add 'www.acme.com', or '*.acme.com' for all" in done.stdout


def test_lint_explains_the_entry_of_an_app() -> None:
    done = gatekeeper("lint", "Capacitor://Localhost/", "wss://acme.com")
    assert done.returncode == 1
    assert "ok        Capacitor://Localhost/ -> capacitor://localhost" in done.stdout
    assert "the app or extension at capacitor://localhost, exactly" in done.stdout
    assert "warning 'Capacitor://Localhost/' allows every app that has kept the default host" in done.stdout
    assert "rejected  wss://acme.com  (scheme)" in done.stdout
    assert "write 'https://acme.com'" in done.stdout


def test_lint_explains_a_rejected_entry_and_exits_with_1() -> None:
    done = gatekeeper("lint", "acme.com", "https://acme.com/shop")
    assert done.returncode == 1
    assert "ok        acme.com" in done.stdout
    assert "rejected  https://acme.com/shop  (path)" in done.stdout


def test_lint_reads_a_file_with_one_entry_per_line(tmp_path: Path) -> None:
    path = tmp_path / "entries.txt"
    path.write_text("acme.com\n\n*.co.uk\n")
    done = gatekeeper("lint", "--file", str(path))
    assert done.returncode == 1
    assert "ok        acme.com" in done.stdout
    assert "rejected  *.co.uk" in done.stdout


def test_lint_reads_a_json_file_of_rows(rows: Path) -> None:
    done = gatekeeper("lint", "--file", str(rows))
    assert done.returncode == 1
    assert "Shop (…abcd1234)" in done.stdout
    assert "Old (…efgh5678)" in done.stdout


def test_lint_of_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    done = gatekeeper("lint", "--file", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "cannot read" in done.stderr


def test_entries_that_look_like_markup_are_printed_literally() -> None:
    done = gatekeeper("lint", "[red]acme.com[/]", "[::1]:*")
    assert "[red]acme.com[/]" in done.stdout
    assert "ok        [::1]:*" in done.stdout


def test_lint_reads_an_indented_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=2))
    done = gatekeeper("lint", "--file", str(path))
    assert "Shop (…abcd1234)" in done.stdout
    assert "ok        *.acme.com" in done.stdout
