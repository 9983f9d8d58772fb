"""The options that name a hub, and the client that they make."""

import inspect
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, NoReturn, ParamSpec
from urllib.request import getproxies

import httpx
import typer

from gatekeeper.cli.output import REFUSED, UNREACHABLE, USAGE, console, legible, stop
from gatekeeper.client import HubClient
from gatekeeper.errors import (
    ConfigError,
    HubAuthenticationError,
    HubInvalidRequestError,
    HubNotFoundError,
    HubPermissionError,
    HubPreconditionFailedError,
    HubRateLimitedError,
    HubServerError,
    HubTransportError,
    SourceError,
)

__all__ = (
    "AccountOption",
    "CaFileOption",
    "HubOption",
    "ProxyOption",
    "SuffixFieldOption",
    "TokenOption",
    "connect",
    "given_options",
    "hub_errors",
    "naming_proxies",
    "with_client",
    "with_options",
)

TIMEOUT = 10.0  # seconds for connecting, and for each wait for bytes; HubClient's own default

HubOption = Annotated[str | None, typer.Option(envvar="GATEKEEPER_HUB", help="The hub's URL.")]
TokenOption = Annotated[
    str | None, typer.Option(envvar="GATEKEEPER_TOKEN", help="The hub's token; safer in the environment than here.")
]
AccountOption = Annotated[str | None, typer.Option(help="The account, if the token does not name it.")]
SuffixFieldOption = Annotated[str, typer.Option(help="The field with the last 8 characters of a key.")]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        help="A PEM file of the CA certificates to trust. Default: SSL_CERT_FILE or SSL_CERT_DIR, or else Mozilla's."
    ),
]
ProxyOption = Annotated[
    str | None,
    typer.Option(help="The proxy's URL. Default: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in the environment."),
]

# The client's errors name its arguments: at the beginning, or as `argument=`.
_OPTIONS = {
    "base_url": "--hub",
    "token": "the token",
    "account": "--account",
    "suffix_field": "--suffix-field",
    "key_id": "the key",
}
_ARGUMENT = re.compile(rf"^({'|'.join(_OPTIONS)})\b|\b({'|'.join(_OPTIONS)})=")

PROXIED = ("http", "https", "all")  # the schemes whose proxies httpx takes from the environment

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
        ca_file: CaFileOption = None,
        proxy: ProxyOption = None,
        **own: Any,
    ) -> None:
        if hub is None:
            stop(USAGE, "expected a hub: --hub, or GATEKEEPER_HUB in the environment")
        with hub_errors(), connect(hub, token, account, suffix_field, ca_file, proxy) as client:
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


@contextmanager
def connect(
    hub: str, token: str | None, account: str | None, suffix_field: str, ca_file: Path | None, proxy: str | None
) -> Iterator[HubClient]:
    """Open a client from the options, or exit if one is wrong.

    Args:
        hub: the hub's URL.
        token: the hub's token.
        account: the account, if the token does not name it.
        suffix_field: the field with the last 8 characters of a key.
        ca_file: a PEM file of the CA certificates to trust, and no others.
        proxy: the proxy's URL.

    Yields:
        The client.

    Raises:
        ConfigError: the hub, the token, the account or the field is wrong.
        typer.Exit: no token, or certificates or a proxy that cannot be used; the reason is printed.
    """
    if not token:
        stop(USAGE, "expected a token for the hub: set GATEKEEPER_TOKEN in the environment")
    with _open_http(ca_file, proxy) as http, naming_proxies(proxy):
        yield HubClient(hub, token, account=account, suffix_field=suffix_field, http=http)


def given_options(context: typer.Context) -> tuple[list[str], list[str]]:
    """The given options that lead to a hub, for another command.

    Args:
        context: the context of a command with the options of `with_client`.

    Returns:
        The options with their values, and the names of those that are left out because their values are secret.
    """
    words, secret = [], []
    for name in ("hub", "token", "account", "suffix_field", "ca_file", "proxy"):
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        option, value = f"--{name.replace('_', '-')}", str(context.params[name])
        if name == "token" or (name == "proxy" and "@" in value):  # a user name and a password end in "@"
            secret.append(option)
        else:
            words += [option, value]
    return words, secret


@contextmanager
def naming_proxies(proxy: str | None) -> Iterator[None]:
    """Name the proxies in an error of the transport. They may be its cause.

    Args:
        proxy: the proxy's URL, if the option names one.

    Raises:
        HubTransportError: as in the block, with the option or the variables that name proxies.
    """
    try:
        yield
    except HubTransportError as error:
        if ways := ["--proxy"] if proxy else [f"{each.upper()}_PROXY" for each in PROXIED if each in getproxies()]:
            raise HubTransportError(f"{error}; a proxy may be in the way, see {', '.join(ways)}") from error
        raise


def with_options(error: Exception) -> str:
    """The message of an error, which names options in place of arguments."""
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    return "; ".join(_ARGUMENT.sub(lambda found: _OPTIONS[found[1] or found[2]], problem) for problem in problems)


@contextmanager
def hub_errors() -> Iterator[None]:
    """Print an error of the hub and exit with its code."""
    try:
        yield
    except (HubTransportError, HubServerError, HubRateLimitedError) as error:
        stop(UNREACHABLE, with_options(error))
    except (
        HubAuthenticationError,
        HubPermissionError,
        HubNotFoundError,
        HubPreconditionFailedError,
        HubInvalidRequestError,
    ) as error:
        for problem in error.errors:
            said = "  ".join(f"{name}: {value}" for name, value in problem.items())
            console(stderr=True).print(f"  [red]refused[/]  {legible(said)}")
        stop(REFUSED, with_options(error))
    except (ConfigError, SourceError) as error:
        stop(USAGE, with_options(error))


def _open_http(ca_file: Path | None, proxy: str | None) -> httpx.Client:
    """Open an httpx client. It reads the environment for options that are not given."""
    trust = _trust(ca_file)
    try:
        return httpx.Client(timeout=TIMEOUT, verify=trust, proxy=None if proxy is None else _proxy(proxy, trust))
    except (ValueError, httpx.InvalidURL):
        # The error may hold the credentials.
        _refuse_proxy(proxy, "expected a URL such as http://proxy.example:3128")
    except ImportError:
        _refuse_proxy(proxy, "SOCKS needs another package: pip install 'httpx[socks]'")


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        where = "SSL_CERT_FILE in the environment" if ca_file is None else f"--ca-file is {str(ca_file)!r}, which"
        problem = "has no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        stop(USAGE, f"{where} {problem}; expected a file of CA certificates in PEM")


def _proxy(url: str, trust: ssl.SSLContext) -> httpx.Proxy:
    # An address without a scheme is one of HTTP, as for curl, and for httpx in the environment.
    whole = httpx.URL(url if "://" in url else f"http://{url}")
    if not whole.host:
        raise ValueError
    return httpx.Proxy(whole, ssl_context=trust if whole.scheme == "https" else None)


def _refuse_proxy(url: str | None, problem: str) -> NoReturn:
    if url is None:
        stop(USAGE, f"HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY in the environment cannot be used: {problem}")
    stop(USAGE, f"--proxy is {url.rpartition('@')[2]!r}: {problem}")
