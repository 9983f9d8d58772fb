"""Problem: a request that the hub refuses, and the answers that say so (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.allowlist import RejectedEntry

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException

__all__ = ("Problem", "problem_response", "refuse_path", "report_crash")


class Problem(Exception):
    """A refusal, raised anywhere between a request and its answer; nothing outside the hub sees it.

    Args:
        status: the status code of the answer.
        code: what is wrong, as a word that programs can compare.
        detail: the same as a sentence that says what to do.
        errors: the allowlist entries that are refused.
        headers: header fields that the answer needs besides.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        errors: Sequence[RejectedEntry] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers
        super().__init__(detail)


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a refusal."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[RejectedEntry, ...] = ()


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
        f"There is no {request.method} on this path. A hub has GET and POST on /api/v1/widget-keys, and PATCH and "
        "DELETE on /api/v1/widget-keys/{id}."
    )
    return problem_response(Problem(status, status.name.lower(), detail, headers=raised.headers))


async def report_crash(_request: Request, _error: Exception) -> Response:
    """Answer 500; Starlette raises the error again, for the server's log.

    Returns:
        The answer, which says nothing about the error.
    """
    detail = "The hub failed; its log says why."
    return problem_response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail))
