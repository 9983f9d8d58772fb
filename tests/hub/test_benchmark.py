"""The benchmark of the hub runs, and measures what it says."""

import json

from benchmarks.hub import main
from tests import needs


def test_the_benchmark_measures_both_kinds_of_database() -> None:
    needs.postgres()
    printed: list[str] = []
    main(["--rows", "1200", "--rounds", "1", "--creates", "3", "--json"], printed.append)
    report = json.loads("".join(printed))
    assert report["rows"] == 1200
    for figures in (report["figures"]["SQLite"], report["figures"]["PostgreSQL"]):
        assert all(
            figure["median"] > 0 for name, figure in figures.items() if "memory" not in name and "processor" not in name
        )
        assert figures["list gzip, size (MB)"]["median"] < figures["list identity, size (MB)"]["median"] / 2
        assert figures["list identity, first byte (ms)"]["median"] <= figures["list identity, whole (ms)"]["median"]
