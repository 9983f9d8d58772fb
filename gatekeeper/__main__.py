"""`python -m gatekeeper` and the command `gatekeeper`."""

import sys

__all__ = ("main",)


def main() -> None:
    """Run the command line, or say what to install."""
    try:
        from gatekeeper.cli import app, run  # noqa: PLC0415 - so that a missing extra can be caught
    except ImportError as error:
        sys.exit(f"gatekeeper: {error}")
    run(lambda: app(prog_name="gatekeeper"))


if __name__ == "__main__":
    main()
