"""Problem: a request that the hub refuses, and the answers that say so (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException

__all__ = (
    "EntryError",
    "Problem",
    "ProblemBody",
    "answer_database_down",
    "answer_nobody",
    "answer_problem",
    "answer_unknown_key",
    "problem_response",
    "refuse_path",
    "report_crash",
)

RETRY_AFTER: Final = 2  # Seconds; a server of PostgreSQL that was restarted is back in about as many.


class EntryError(msgspec.Struct, frozen=True):
    """One of several entries that the hub refuses.

    Attributes:
        entry: the entry of an allowlist, as written; or the key's id in a usage report.
        reason: what is wrong with it, as a word that programs can compare.
        hint: what is wrong and how to mend it, as a sentence.
    """

    entry: str
    reason: str
    hint: str


class Problem(Exception):
    """A refusal, raised anywhere between a request and its answer; nothing outside the hub sees it.

    Args:
        status: the status code of the answer.
        code: what is wrong, as a word that programs can compare.
        detail: the same as a sentence that says what to do.
        errors: the entries of an allowlist or a usage report that are refused.
        headers: header fields that the answer needs besides.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[EntryError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers
        super().__init__(detail)


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a refusal (RFC 9457).

    Attributes:
        type: `urn:gatekeeper:hub:<code>`.
        title: the phrase of the status.
        status: the status code of the answer.
        detail: what is wrong, as a sentence that says what to do.
        code: what is wrong, as a word that programs can compare.
        errors: the entries that are refused, where it is about entries.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[EntryError, ...] = ()


def problem_response(problem: Problem) -> Response:
    """Answer with a problem.

    Args:
        problem: what is wrong.

    Returns:
        The answer, which no cache keeps.
    """
    body = ProblemBody(
        type=f"urn:gatekeeper:hub:{problem.code}",
        title=problem.status.phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        errors=problem.errors,
    )
    return Response(
        msgspec.json.encode(body),
        status_code=problem.status,
        headers={"Cache-Control": "no-store", **(problem.headers or {})},
        media_type="application/problem+json",
    )


async def answer_problem(_request: Request, error: Exception) -> Response:
    """Answer with the problem that was raised on the way.

    Args:
        error: a Problem.

    Returns:
        The answer.
    """
    return problem_response(cast("Problem", error))


async def answer_unknown_key(_request: Request, _error: Exception) -> Response:
    """Answer 404, the same for an id that nobody has and for that of another account.

    Returns:
        The answer.
    """
    return problem_response(Problem(HTTPStatus.NOT_FOUND, "not_found", "There is no widget key of this id."))


async def answer_database_down(_request: Request, _error: Exception) -> Response:
    """Answer 503.

    Returns:
        The answer, which asks to come back soon.
    """
    detail = "The hub's database does not answer. Nothing was changed that was not acknowledged; try again."
    headers = {"Retry-After": str(RETRY_AFTER)}
    return problem_response(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "database_down", detail, headers=headers))


async def answer_nobody(_request: Request, _error: Exception) -> Response:
    """Answer a client that has left; without an answer, the server's log calls every lost connection a crash.

    Returns:
        The answer, which nobody reads.
    """
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def refuse_path(request: Request, error: Exception) -> Response:
    """Answer 404 or 405, as Starlette's router raised it.

    Args:
        request: what was asked for.
        error: an HTTPException.

    Returns:
        The answer.
    """
    raised = cast("HTTPException", error)
    status = HTTPStatus(raised.status_code)
    detail = (
        f"There is no {request.method} on this path. A hub has GET and POST on /api/v1/widget-keys, POST on "
        "/api/v1/widget-keys/usage, PATCH and DELETE on /api/v1/widget-keys/{id}, GET on /api/v1/widget-keys/{id}/events; "
        "GET /openapi.json describes them."
    )
    return problem_response(Problem(status, status.name.lower(), detail, headers=raised.headers))


async def report_crash(_request: Request, _error: Exception) -> Response:
    """Answer 500; Starlette raises the error again, for the server's log.

    Returns:
        The answer, which says nothing about the error.
    """
    detail = "The hub failed; its log says why."
    return problem_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))
