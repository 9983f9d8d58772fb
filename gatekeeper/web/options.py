"""The checks of the options of GatekeeperMiddleware."""

from collections.abc import Collection, Iterator

from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.web.cors import CorsPolicy, is_token
from gatekeeper.web.frames import frame_problems
from gatekeeper.web.loader import loader_problems
from gatekeeper.web.request import path_problems

__all__ = ("option_problems",)


def option_problems(
    gatekeeper: object,
    key_names: tuple[object, object],
    cors: object,
    *,
    exempt: Collection[str],
    frames: Collection[str],
    grant_path: str | None,
    own_origins: Collection[str],
    loader_path: object,
) -> Iterator[str]:
    """Yield one sentence for each mistake in the options.

    Args:
        gatekeeper: as for GatekeeperMiddleware.
        key_names: its `key_header` and `key_query`.
        cors: its policy.
        exempt: as for GatekeeperMiddleware.
        frames: as for GatekeeperMiddleware.
        grant_path: as for GatekeeperMiddleware.
        own_origins: as for GatekeeperMiddleware.
        loader_path: as for GatekeeperMiddleware.
    """
    if not isinstance(gatekeeper, Gatekeeper):
        yield f"gatekeeper is {gatekeeper!r}: expected a Gatekeeper"
    yield from _name_problems(*key_names)
    yield from _cors_problems(cors, gatekeeper)
    yield from path_problems("exempt", exempt)
    has_secrets = not isinstance(gatekeeper, Gatekeeper) or gatekeeper.grant_lifetime is not None
    yield from frame_problems(frames, grant_path, own_origins, exempt, key_names=key_names, has_secrets=has_secrets)
    yield from loader_problems(loader_path, key_names, exempt=exempt, frames=frames, grant_path=[grant_path or "/"])


def _name_problems(key_header: object, key_query: object) -> Iterator[str]:
    if not is_token(key_header) or str(key_header).lower() in {"origin", "referer"}:
        yield f"key_header is {key_header!r}: expected a header name, not Origin or Referer, such as 'data-client-key'"
    elif "_" in str(key_header):
        yield (
            f"key_header is {key_header!r}: nginx and other servers drop headers with an underscore; "
            f"use hyphens, such as {str(key_header).replace('_', '-')!r}"
        )
    if not is_token(key_query):
        yield f"key_query is {key_query!r}: expected the name of a query parameter, such as 'client_key'"


def _cors_problems(cors: object, gatekeeper: object) -> Iterator[str]:
    if not isinstance(cors, CorsPolicy):
        yield f"cors is {cors!r}: expected a CorsPolicy"
    elif cors.allow_credentials:
        if cors.preflight != "strict":
            yield "allow_credentials=True needs CorsPolicy(preflight='strict'): open preflights answer every origin"
        if isinstance(gatekeeper, Gatekeeper) and not gatekeeper.https_only:
            yield "allow_credentials=True needs Gatekeeper(https_only=True): anyone on the network path can forge http pages"
