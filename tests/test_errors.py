"""The exception tree, and the text of each error."""

import inspect
import re
from collections.abc import Iterator
from typing import get_args

import pytest

from gatekeeper import errors
from gatekeeper.errors import (
    ClientClosed,
    ConfigError,
    DecisionMissing,
    GatekeeperError,
    HubAuthenticationError,
    HubError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubProtocolError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    InvalidClientKey,
    InvalidEntry,
    InvalidList,
    InvalidOrigin,
    InvalidRow,
    SourceError,
)

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, GatekeeperError)]


def drawn_tree() -> Iterator[tuple[str, str | None]]:
    """Read the tree in the module's docstring: each name and its base."""
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if (name := re.match(r"([│├└─ ]*)([A-Z]\w+)  ", line)) is not None:
            depth = len(name[1]) // 4
            path[depth:] = [name[2]]
            yield name[2], path[depth - 1] if depth else None


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = dict(drawn_tree())
    assert drawn == {
        cls.__name__: None if cls is GatekeeperError else str(cls.__base__ and cls.__base__.__name__) for cls in CLASSES
    }


def test_every_error_is_public_and_says_what_it_stands_for() -> None:
    literals = {name for name, value in vars(errors).items() if name.endswith("Reason") and get_args(value)}
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES} | literals
    assert [cls.__name__ for cls in CLASSES if "__doc__" not in vars(cls) or not cls.__doc__] == []


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (ConfigError, ValueError),
        (DecisionMissing, LookupError),
        (InvalidOrigin, ValueError),
        (InvalidEntry, ValueError),
        (InvalidClientKey, ValueError),
        (InvalidRow, ValueError),
    ],
)
def test_mistakes_in_values_are_caught_by_the_builtin_error_too(
    cls: type[GatekeeperError], builtin: type[Exception]
) -> None:
    assert issubclass(cls, builtin)


def test_a_source_error_is_no_value_error() -> None:
    assert [cls.__name__ for cls in CLASSES if issubclass(cls, SourceError) and issubclass(cls, ValueError)] == []


def test_a_config_error_lists_every_problem() -> None:
    error = ConfigError(f"{name} is 0: expected more" for name in ("refresh_interval", "max_age"))
    assert error.problems == ("refresh_interval is 0: expected more", "max_age is 0: expected more")
    assert str(error) == "gatekeeper: refresh_interval is 0: expected more; max_age is 0: expected more"


def test_an_invalid_origin_has_a_reason_and_a_sentence() -> None:
    error = InvalidOrigin("port", "a port is a number")
    assert (error.reason, str(error)) == ("port", "a port is a number")


def test_an_invalid_entry_has_a_reason_and_a_hint() -> None:
    error = InvalidEntry("empty", "Write a domain.")
    assert (error.reason, error.hint, str(error)) == ("empty", "Write a domain.", "Write a domain.")


def test_an_invalid_row_names_its_place_and_its_id() -> None:
    error = InvalidRow(7, "there is no last8", row_id="wk_1", fields=("id", "suffix"))
    assert str(error) == "row 7 (id 'wk_1'): there is no last8"
    assert (error.index, error.problem, error.row_id, error.fields) == (7, "there is no last8", "wk_1", ("id", "suffix"))


def test_an_invalid_row_without_an_id_names_its_place() -> None:
    error = InvalidRow(0, "it is null")
    assert str(error) == "row 0: it is null"
    assert (error.row_id, error.fields) == (None, ())


@pytest.mark.parametrize("cls", [SourceError, *SourceError.__subclasses__(), *HubError.__subclasses__()])
def test_a_source_error_is_a_sentence_and_may_have_retry_after(cls: type[SourceError]) -> None:
    assert str(cls("no answer came")) == "no answer came"
    assert cls("no answer came").retry_after is None
    assert cls("too many requests", retry_after=2.5).retry_after == 2.5


@pytest.mark.parametrize(
    ("cls", "lasting"),
    [
        (SourceError, False),
        (InvalidList, False),
        (HubError, False),
        (ClientClosed, False),
        (HubTransportError, False),
        (HubProtocolError, False),
        (HubAuthenticationError, True),
        (HubPermissionError, True),
        (HubNotFoundError, True),
        (HubInvalidRequestError, False),
        (HubRateLimitedError, False),
        (HubServerError, False),
    ],
)
def test_only_errors_that_a_person_must_fix_are_lasting(cls: type[SourceError], *, lasting: bool) -> None:
    assert cls.lasting is lasting
    assert cls("…").lasting is lasting


@pytest.mark.parametrize("cls", HubError.__subclasses__())
def test_a_hub_error_says_what_the_hub_answered(cls: type[HubError]) -> None:
    mistake = {"field": "name", "message": "is too long"}
    error = cls("the hub refuses the name", status=422, errors=(mistake,), retry_after=1)
    assert (error.status, error.errors, error.retry_after) == (422, (mistake,), 1)
    assert (cls("refused").status, cls("refused").errors) == (None, ())
