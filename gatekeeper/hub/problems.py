"""Problem: a refused request, and the hub's error answers (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException

    from gatekeeper.hub.rows import RowChanged

__all__ = (
    "EntryError",
    "Problem",
    "ProblemBody",
    "answer_crash",
    "answer_database_down",
    "answer_disconnected",
    "answer_overloaded",
    "answer_problem",
    "answer_row_changed",
    "answer_unknown_key",
    "answer_unrouted",
    "answer_unstorable",
    "problem_response",
)

RETRY_AFTER: Final = 2  # Seconds; a restart of PostgreSQL takes about as long.
RETRY_LATER: Final = 5  # Seconds; about as long as a refused request has waited.


class EntryError(msgspec.Struct, frozen=True):
    """A refused entry of an allowlist or of a report.

    Attributes:
        entry: the allowlist entry as written, the key id in a report on usage, or the position in one on refused pages,
            from 0.
        reason: a stable identifier of the error, for programs.
        hint: a sentence on what is wrong and how to correct it.
    """

    entry: str
    reason: str
    hint: str


class Problem(Exception):
    """The refusal of a request. It never leaves the hub.

    Args:
        status: the status code of the answer.
        code: a stable identifier of the error, for programs.
        detail: a sentence on what is wrong and what to do.
        errors: the refused entries of an allowlist or a report.
        headers: additional header fields of the answer.
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
        title: the phrase of the status code.
        status: the status code of the answer.
        detail: a sentence on what is wrong and what to do.
        code: a stable identifier of the error, for programs.
        errors: the refused entries, if any.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[EntryError, ...] = ()


def problem_response(problem: Problem) -> Response:
    """Turn a problem into a response.

    Args:
        problem: the refusal.

    Returns:
        The response, which caches must not store.
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
    """Answer with the problem that a handler raised.

    Args:
        error: a Problem.

    Returns:
        The answer.
    """
    return problem_response(cast("Problem", error))


async def answer_unknown_key(_request: Request, _error: Exception) -> Response:
    """Answer 404, alike for unknown ids and for those of other accounts.

    Returns:
        The answer.
    """
    return problem_response(Problem(HTTPStatus.NOT_FOUND, "not_found", "There is no widget key with this id."))


async def answer_row_changed(_request: Request, error: Exception) -> Response:
    """Answer 412.

    Args:
        error: a RowChanged.

    Returns:
        The answer, with the ETag of the row as it is now.
    """
    etag = cast("RowChanged", error).etag
    detail = f"The row has changed: its ETag is {etag} now, which If-Match does not name. Read the row, and decide again."
    return problem_response(Problem(HTTPStatus.PRECONDITION_FAILED, "precondition_failed", detail, headers={"ETag": etag}))


async def answer_database_down(_request: Request, _error: Exception) -> Response:
    """Answer 503.

    Returns:
        The answer, with Retry-After.
    """
    detail = "The hub's database does not answer, or cannot be written. The request was not completed; try again."
    headers = {"Retry-After": str(RETRY_AFTER)}
    return problem_response(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "database_down", detail, headers=headers))


async def answer_overloaded(_request: Request, _error: Exception) -> Response:
    """Answer 503. `LoadLog` says what was waited for.

    Returns:
        The answer, with Retry-After.
    """
    detail = "The hub has more requests than it can answer in time. The request was not completed; try again."
    headers = {"Retry-After": str(RETRY_LATER)}
    return problem_response(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, headers=headers))


async def answer_unstorable(_request: Request, _error: Exception) -> Response:
    """Answer 400 for text that the encoding of the database lacks.

    Returns:
        The answer.
    """
    detail = (
        "The database cannot store a character of this request, because its encoding is not UTF8. Ask the hub's operator."
    )
    return problem_response(Problem(HTTPStatus.BAD_REQUEST, "unstorable", detail))


async def answer_disconnected(_request: Request, _error: Exception) -> Response:
    """Answer a client that has disconnected.

    Without an answer, the server would log each lost connection as a crash.

    Returns:
        The answer, which the client no longer receives.
    """
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def answer_unrouted(request: Request, error: Exception) -> Response:
    """Answer 404 or 405 for a path or method without a route.

    Args:
        request: the request.
        error: the HTTPException of Starlette's router.

    Returns:
        The answer.
    """
    raised = cast("HTTPException", error)
    status = HTTPStatus(raised.status_code)
    detail = (
        f"There is no {request.method} on this path. The hub has GET and POST on /api/v1/widget-keys, POST on "
        "/api/v1/widget-keys/usage, GET and POST on /api/v1/widget-keys/refused, GET, PATCH and DELETE on "
        "/api/v1/widget-keys/{id}, GET on /api/v1/widget-keys/{id}/events, GET and POST on /api/v1/gates; "
        "GET /openapi.json describes them."
    )
    return problem_response(Problem(status, status.name.lower(), detail, headers=raised.headers))


async def answer_crash(_request: Request, _error: Exception) -> Response:
    """Answer 500. Starlette raises the error again for the server's log.

    Returns:
        The answer, without details of the error.
    """
    detail = "The hub failed. Its log has the reason."
    return problem_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))
