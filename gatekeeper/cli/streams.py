"""Standard streams that print any text and report errors."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

__all__ = ("OUTPUT_LOST", "OutputLost", "StandardStream", "run")

OUTPUT_LOST = 2  # the exit code


class OutputLost(Exception):
    """Standard output cannot be written. The reason is on standard error."""


class StandardStream(io.TextIOWrapper):
    r"""A standard stream that prints any text and reports errors.

    Characters that the encoding lacks are written as Python escapes them, such as `\u2026`. After an error, everything
    else goes to the null device, so that the interpreter does not fail again when it flushes at exit:
    https://docs.python.org/3/library/signal.html#note-on-sigpipe

    Args:
        stream: the stream to write to, or None if the process was started without it.
        required: whether an error is raised as OutputLost; otherwise the text is dropped.
    """

    def __init__(self, stream: TextIO | None, *, required: bool) -> None:
        self._required = required
        if isinstance(stream, io.TextIOWrapper):
            super().__init__(
                stream.buffer,
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
        else:
            # The null device takes the place of the closed descriptor. Writes to it fail, because it is open for reading.
            descriptor = os.open(os.devnull, os.O_RDONLY)
            super().__init__(io.BufferedWriter(io.FileIO(descriptor, "w")), encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text, or fail as the class documents."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered, or fail as the class documents."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self._required:
            return
        if error.errno != errno.EPIPE:  # `gatekeeper keys list | head` is not an error
            sys.stderr.write(f"gatekeeper: cannot write the output: {error.strerror}\n")
        raise OutputLost from None


def run(command: Callable[[], None]) -> None:
    """Run a command with standard streams that report errors.

    Args:
        command: the command, which prints and may exit.

    Raises:
        SystemExit: the command exits, or standard output cannot be written; then the code is OUTPUT_LOST.
    """
    sys.stdout = StandardStream(sys.stdout, required=True)
    sys.stderr = StandardStream(sys.stderr, required=False)
    try:
        try:
            command()
        finally:
            # At exit, the interpreter would report an error of this in its own words.
            sys.stdout.flush()
    except OutputLost:
        sys.exit(OUTPUT_LOST)
