"""Fuzz with atheris (coverage-guided): python -m tests.fuzz TARGET [--seconds 60].

A target is one of origin, referer, allowlist, client_key, query, scope. It runs for the time given and prints libFuzzer's
statistics; an input that breaks a promise ends it with a traceback, and is left in a file crash-… in the directory for
temporary files.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gatekeeper"]):
    from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatekeeper-fuzz-") as corpus:
        for number, seed in enumerate(SEEDS[options.target]):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        arguments = [
            sys.argv[0],
            f"-max_total_time={options.seconds}",
            "-max_len=600",
            "-print_final_stats=1",
            f"-artifact_prefix={tempfile.gettempdir()}/",
            corpus,
        ]
        atheris.Setup(arguments, TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
