"""gatekeeper hub: run the reference hub, upgrade its database, manage its tokens."""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import anyio
import typer

from gatekeeper.cli.output import (
    REFUSED,
    UNREACHABLE,
    USAGE,
    ask,
    console,
    legible,
    moment,
    plain,
    print_columns,
    print_json,
    print_text,
    shown_once,
    stop,
    warn,
)
from gatekeeper.cli.pepper import find_pepper, is_file, warn_if_exposed
from gatekeeper.cli.serving import (
    DATABASE_VARIABLE,
    LISTEN_DATABASE_VARIABLE,
    read_address,
    require_free,
    require_server,
    serve,
)
from gatekeeper.errors import ConfigError, DatabaseDown, HubOverloaded

if TYPE_CHECKING:
    from gatekeeper.hub import Hub

__all__ = ("DatabaseOption", "HubOptions", "PepperFileOption", "hub", "problems", "require_file", "shown_account")

DEFAULT_DATABASE = "gatekeeper-hub.sqlite"

_ALL = "all accounts"  # in place of a name, which has no space

TITLES = ("ID", "ACCOUNT", "NAME", "SCOPE", "CREATED")
LEAST = {4: 14, 2: 9, 1: 8}  # of created, name and account, so that a whole id fits 80 columns

hub = typer.Typer(invoke_without_command=True)
tokens = typer.Typer(help="Manage the tokens that clients send to the hub.", no_args_is_help=True)
hub.add_typer(tokens, name="token")

DatabaseOption = Annotated[
    str | None,
    typer.Option(help="A SQLite file, or postgresql://user:password@host:port/name; as for `gatekeeper hub`."),
]
PepperFileOption = Annotated[Path | None, typer.Option(help="A file with the pepper; as for `gatekeeper hub`.")]

Result = TypeVar("Result")


class Scope(StrEnum):
    """What a token may do; typer lists the values."""

    GATE = "gate"
    ADMIN = "admin"


class HubOptions(NamedTuple):
    """The options that all commands share.

    Attributes:
        database: the path of a SQLite file, or the URL of a PostgreSQL database.
        pepper_file: the file with the pepper, if given.
    """

    database: str
    pepper_file: Path | None


@hub.callback()
def run(
    context: typer.Context,
    *,
    database: Annotated[
        str,
        typer.Option(
            envvar=DATABASE_VARIABLE,
            show_envvar=True,
            help="A SQLite file, or postgresql://user:password@host:port/name; use the environment if it has a password.",
        ),
    ] = DEFAULT_DATABASE,
    pepper_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the pepper, the secret that keys the hashes of keys and tokens. Default: GATEKEEPER_PEPPER in "
            "the environment, or a file beside the SQLite database, created together with it."
        ),
    ] = None,
    listen_database: Annotated[
        str | None,
        typer.Option(
            envvar=LISTEN_DATABASE_VARIABLE,
            show_envvar=True,
            help="The same PostgreSQL database, not through PgBouncer, for a connection on which workers hear of changes.",
        ),
    ] = None,
    listen: Annotated[str, typer.Option(help="Where to listen: host:port.")] = "127.0.0.1:8700",
    workers: Annotated[int, typer.Option(min=1, help="Processes; more than one needs PostgreSQL.")] = 1,
) -> None:
    """Run a hub until SIGTERM or Ctrl-C. Open requests are answered first."""
    context.obj = options = HubOptions(database, pepper_file)
    if context.invoked_subcommand is not None:
        return
    require_server()
    address = read_address(listen)
    with problems():
        from gatekeeper.hub.database import Database, parse_location  # noqa: PLC0415 - an extra of its own
        from gatekeeper.hub.minting import Mint, random_text  # noqa: PLC0415 - the same

        if workers > 1 and is_file(database):
            stop(USAGE, f"{workers} workers need a PostgreSQL database: a SQLite file has one writer at a time")
        require_free(address)
        pepper = _pepper(options)
        try:
            Database(parse_location(database, listen_database)).migrate(Mint(pepper, random_text).check_value())
        except DatabaseDown as error:
            warn(f"the hub's database does not answer as it should: {error.reason}; the hub answers 503 until it does")
    serve(database, listen_database, pepper, address, workers=workers)


@hub.command("migrate")
def upgrade(context: typer.Context, *, database: DatabaseOption = None, pepper_file: PepperFileOption = None) -> None:
    """Upgrade the database to the newest schema. Every start does the same."""
    options = _options(context, database, pepper_file)
    with problems():
        from gatekeeper.hub import migrate  # noqa: PLC0415 - an extra of its own

        if is_file(options.database):
            # Create the pepper together with the file: a file without one later counts as having lost it.
            _pepper(options)
        migrate(options.database)
    console().print("the database has the newest schema")


@tokens.command("create")
def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="The token's name, which events show.", show_default=False)],
    account: Annotated[str | None, typer.Option(help="The account whose keys it is for; created if new.")] = None,
    all_accounts: Annotated[
        bool, typer.Option("--all-accounts", help="Make it for the keys of all accounts, with the scope gate.")
    ] = False,
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="What it may do. gate: list keys and report on them; admin: everything. Default: admin, or gate for all.",
            show_default=False,
        ),
    ] = None,
    database: DatabaseOption = None,
    pepper_file: PepperFileOption = None,
) -> None:
    """Mint a token and print it. It cannot be shown again."""
    options = _options(context, database, pepper_file)
    plaintext = _with_hub(options, _minting(account, name, scope, all_accounts=all_accounts))

    def lost() -> str:
        owner = account or _ALL
        rows = _with_hub(options, lambda hub: hub.tokens.list())
        *_, token_id = [row.id for row in rows if (shown_account(row.account), row.name) == (owner, name)]
        return f"the token {token_id} was minted but not shown; revoke it: gatekeeper hub token revoke {token_id}"

    with shown_once(lost):
        print_text(plaintext)
    out = console(stderr=True)
    out.print("The token will not be shown again.")
    if all_accounts:
        out.print("It can list the keys of all accounts and report on them. A gate of one account needs no such token.")
    elif scope is not Scope.GATE:
        out.print("It can create, change and delete keys. For a gate, mint one with --scope gate.")


@tokens.command("list")
def list_tokens(
    context: typer.Context,
    *,
    account: Annotated[str | None, typer.Option(help="List only the tokens of this account; '*' for those of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    database: DatabaseOption = None,
    pepper_file: PepperFileOption = None,
) -> None:
    """List the tokens, without their plaintexts."""
    options = _existing(_options(context, database, pepper_file))
    rows = _with_hub(options, lambda hub: hub.tokens.list(account), create=False)
    if as_json:
        print_json(rows)
        return
    cells = [(row.id, shown_account(row.account), plain(row.name), row.scope, moment(row.created_at)) for row in rows]
    print_columns([TITLES, *cells], foldable=LEAST)


@tokens.command("revoke")
def revoke(
    context: typer.Context,
    *,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, from `token list`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    database: DatabaseOption = None,
    pepper_file: PepperFileOption = None,
) -> None:
    """Revoke a token. The next request with it is refused."""
    options = _existing(_options(context, database, pepper_file))
    ask(f"Revoke the token {plain(token_id)}? Programs that use it lose access.", yes=yes)
    revoked = _with_hub(options, lambda hub: hub.tokens.revoke(token_id), create=False)
    if revoked is None:
        stop(REFUSED, f"there is no token with the id {token_id!r}; `gatekeeper hub token list` lists them")
    console().print(f"the token {legible(revoked.name)} of {legible(shown_account(revoked.account))} is revoked")


def _minting(
    account: str | None, name: str, scope: Scope | None, *, all_accounts: bool
) -> "Callable[[Hub], Awaitable[str]]":
    """What mints the token; or exit if the options contradict each other."""
    if all_accounts:
        if account is not None:
            stop(USAGE, "--account and --all-accounts exclude each other: a token is for one account, or for all")
        if scope is Scope.ADMIN:
            stop(USAGE, "a token for all accounts has the scope gate: leave --scope out, or mint one of scope admin for an "
                 "--account")  # fmt: skip
        return lambda hub: hub.tokens.mint_for_all(name=name)
    if account is None:
        stop(USAGE, "expected --account with the account whose keys the token is for; or --all-accounts")
    chosen = scope or Scope.ADMIN
    return lambda hub: hub.tokens.mint(account, name=name, scope=chosen.value)


def shown_account(account: str) -> str:
    """Name the account of a token, such as "acme" or "all accounts"."""
    from gatekeeper.hub.accounts import ALL_ACCOUNTS  # noqa: PLC0415 - an extra of its own

    return _ALL if account == ALL_ACCOUNTS else plain(account)


def _options(context: typer.Context, database: str | None, pepper_file: Path | None) -> HubOptions:
    """The options of the command, or those given before it."""
    group: HubOptions = context.obj
    return HubOptions(database or group.database, pepper_file or group.pepper_file)


def require_file(database: str) -> None:
    """Exit if the database is invalid, or its file does not exist."""
    with problems():
        from gatekeeper.hub.database import parse_location  # noqa: PLC0415 - an extra of its own

        parse_location(database)
    if is_file(database) and not Path(database).exists():
        stop(USAGE, f"there is no database {Path(database).absolute()}: expected the file of a hub as --database or "
             f"{DATABASE_VARIABLE}; `gatekeeper hub` and `gatekeeper hub token create` create one")  # fmt: skip


def _existing(options: HubOptions) -> HubOptions:
    require_file(options.database)
    return options


def _pepper(options: HubOptions) -> str:
    from gatekeeper.hub.database import parse_location  # noqa: PLC0415 - an extra of its own

    # Check the database first, so that a mistyped one gets no pepper file.
    parse_location(options.database)
    pepper = find_pepper(options.database, options.pepper_file)
    if is_file(options.database):
        warn_if_exposed(Path(options.database))
    return pepper


def _with_hub(options: HubOptions, act: "Callable[[Hub], Awaitable[Result]]", *, create: bool = True) -> Result:
    async def open_and_act() -> Result:
        async with app.router.lifespan_context(app):
            return await act(app.state.hub)

    # The error below says the same as the hub's log.
    logging.getLogger("gatekeeper.hub").addHandler(logging.NullHandler())
    with problems():
        from gatekeeper.hub.app import build_app  # noqa: PLC0415 - an extra of its own
        from gatekeeper.hub.database import Database, parse_location  # noqa: PLC0415 - the same
        from gatekeeper.hub.minting import Mint, random_text  # noqa: PLC0415 - the same

        mint = Mint(_pepper(options), random_text)
        database = Database(parse_location(options.database), create=create)
        app = build_app(database, mint, lambda: datetime.now(UTC))
        return anyio.run(open_and_act)


@contextmanager
def problems() -> Iterator[None]:
    """Exit with a sentence if a hub or its database fails."""
    try:
        yield
    except (DatabaseDown, HubOverloaded) as error:
        stop(UNREACHABLE, str(error))
    except (ConfigError, ImportError) as error:
        stop(USAGE, str(error))
    except sqlite3.DatabaseError as error:
        stop(USAGE, f"{'; '.join(getattr(error, '__notes__', ())) or 'the database of the hub'}: {error}")
