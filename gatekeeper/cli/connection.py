"""The options that name a hub, and the client that they make."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, legible, stop
from gatekeeper.client import HubClient
from gatekeeper.errors import (
    ConfigError,
    HubAuthenticationError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    SourceError,
)

__all__ = ("AccountOption", "HubOption", "SuffixFieldOption", "TokenOption", "hub_errors", "require_token", "with_client")

HubOption = Annotated[str | None, typer.Option(envvar="GATEKEEPER_HUB", help="The hub's URL.")]
TokenOption = Annotated[
    str | None, typer.Option(envvar="GATEKEEPER_TOKEN", help="The hub's token; safer in the environment than here.")
]
AccountOption = Annotated[str | None, typer.Option(help="The account, if the token does not name it.")]
SuffixFieldOption = Annotated[str, typer.Option(help="The field with the last 8 characters of a key.")]

Own = ParamSpec("Own")


def with_client(command: Callable[Concatenate[HubClient, Own], None]) -> Callable[..., None]:
    """Add the options that name a hub to a command.

    Args:
        command: a command that takes a client first, and its own options by keyword.

    Returns:
        The command for typer, with all options and without the client.
    """
    act: Callable[..., None] = command

    def run(
        *,
        hub: HubOption = None,
        token: TokenOption = None,
        account: AccountOption = None,
        suffix_field: SuffixFieldOption = "last8",
        **own: Any,
    ) -> None:
        if hub is None:
            stop(USAGE, "expected a hub: --hub, or GATEKEEPER_HUB in the environment")
        with hub_errors(), HubClient(hub, require_token(token), account=account, suffix_field=suffix_field) as client:
            act(client, **own)

    # typer reads the parameters from the signature and the annotations.
    _, *parameters = inspect.signature(command).parameters.values()
    connecting = [each for each in inspect.signature(run).parameters.values() if each.name != "own"]
    together = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*parameters, *connecting)]
    described: Any = wraps(command)(run)
    described.__annotations__ = {each.name: each.annotation for each in together}
    described.__signature__ = inspect.Signature(together)
    result: Callable[..., None] = described
    return result


def require_token(token: str | None) -> str:
    """Return the token, or exit if there is none."""
    return token or stop(USAGE, "expected a token for the hub: set GATEKEEPER_TOKEN in the environment")


@contextmanager
def hub_errors() -> Iterator[None]:
    """Print an error of the hub and exit with its code."""
    try:
        yield
    except (HubTransportError, HubServerError, HubRateLimitedError) as error:
        stop(UNREACHABLE, str(error))
    except (HubAuthenticationError, HubPermissionError, HubNotFoundError, HubInvalidRequestError) as error:
        for problem in error.errors:
            said = "  ".join(f"{name}: {value}" for name, value in problem.items())
            console(stderr=True).print(f"  [red]refused[/]  {legible(said)}")
        stop(REFUSED, str(error))
    except (ConfigError, SourceError) as error:
        stop(USAGE, str(error))
