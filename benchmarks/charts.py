"""The README's charts, readable on light and dark pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.script import Figures

__all__ = ("CHARTS", "draw")

OURS = "#2f81f7"
INK = "#7d8590"  # a grey that is readable on either background
OTHERS = ("#8b949e", "#b08800", "#bf5af2", "#3fb950", "#db6d28")
CLIPPED_AT = 3.0  # times CORSMiddleware: longer bars would make the rest unreadable
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "gatekeeper",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def overhead(figures: Figures, path: Path) -> None:
    """The time added to an allowed request: a bar for each contender."""
    added = {name: each["added_ns"] for name, each in figures["allowed"]["header key"].items()}
    clip = CLIPPED_AT * added["CORSMiddleware"]["median"]
    with _axes(path, (7.2, 3.0)) as axes:
        names = sorted(added, key=lambda name: -added[name]["median"])
        _bars(
            axes,
            {name: {key: value / 1000 for key, value in added[name].items()} for name in names},
            clip / 1000,
            "{:.1f} µs",
        )
        axes.set(xlabel="µs added to an allowed request, in process", xlim=(0, clip / 1000 * 1.15))


def keys(figures: Figures, path: Path) -> None:
    """The time of an allowed request by the number of keys."""
    by_keys = figures["flat"]["keys"]
    sizes = [int(size) for size in by_keys]
    first = figures["first_sight_us"]
    with _axes(path, (7.2, 3.4)) as axes:
        axes.plot(
            sizes,
            [each["added_ns"]["median"] / 1000 for each in by_keys.values()],
            marker="o",
            linewidth=2.6,
            color=OURS,
            label="gatekeeper, a pair seen before",
        )
        axes.plot(
            sizes,
            [first[str(size)]["key"]["median"] for size in sizes],
            marker="o",
            linewidth=1.6,
            color=OURS,
            alpha=0.5,
            label="gatekeeper, first sight of a key",
        )
        for name, colour in (("CORSMiddleware", OTHERS[1]), ("floor", OTHERS[0])):
            level = figures["allowed"]["header key"][name]["added_ns"]["median"] / 1000
            axes.axhline(level, linestyle="--", linewidth=1.4, color=colour, label=f"{name}, which knows 1 origin")
        axes.set(xscale="log", xlabel="keys of the account", ylabel="µs")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, axis="y")
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def load(figures: Figures, path: Path) -> None:
    """Requests/s behind the first server: a group of bars for each workload."""
    server, by_workload = next(iter(figures.items()))
    with _style():
        figure, panels = plt.subplots(1, len(by_workload), figsize=(8.4, 2.6), sharey=True, squeeze=False)
        for axes, (workload, by_guard) in zip(panels[0], by_workload.items(), strict=True):
            rates = {guard: by_guard[guard]["requests_per_s"] for guard in reversed(by_guard)}
            most = max(each["quartile_3"] for each in rates.values())
            _bars(axes, rates, most * 2, "{:,.0f}")
            axes.set(xlabel=f"requests/s, {workload}", xlim=(0, most * 1.35))
            axes.locator_params(axis="x", nbins=3)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.suptitle(f"{server}, one worker on one core", color=INK, fontsize=10)
        figure.tight_layout()
        _save(path)


def matching(figures: Figures, path: Path) -> None:
    """The time of a decision by the number of entries."""
    with _axes(path, (7.2, 3.6)) as axes:
        colours = iter(OTHERS)
        for name, by_size in figures["curve_us"].items():
            ours = name == "gatekeeper"
            sizes = [int(size) for size in by_size]
            axes.plot(
                sizes,
                [each["miss"]["median"] for each in by_size.values()],
                marker="o",
                label=name,
                linewidth=2.6 if ours else 1.4,
                color=OURS if ours else next(colours),
            )
        axes.set(xscale="log", yscale="log", xlabel="entries", ylabel="µs for an origin that no entry allows")
        axes.grid(visible=True)
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def lag(figures: Figures, path: Path) -> None:
    """The maximum lag of the event loop during each kind of refresh."""
    size, by_contender = max(figures.items(), key=lambda item: int(item[0]))
    with _axes(path, (7.2, 3.2)) as axes:
        for number, (contender, each) in enumerate(by_contender.items()):
            worst = [refresh["lag_ms"]["max"]["median"] for refresh in each["refreshes"].values()]
            places = [place + number * 0.4 for place in range(len(worst))]
            colour = OURS if contender == "gatekeeper" else OTHERS[0]
            axes.barh(places, worst, height=0.36, color=colour, label=contender)
            for place, milliseconds in zip(places, worst, strict=True):
                at = (milliseconds, place)
                axes.annotate(
                    f"{milliseconds:,.1f} ms", at, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
                )
        names = list(next(iter(by_contender.values()))["refreshes"])
        axes.set_yticks([place + 0.2 for place in range(len(names))], names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel=f"ms that the event loop is late at most, {int(size):,} keys")
        axes.margins(x=0.15)
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


CHARTS = {
    "overhead": ((overhead, "overhead.svg"), (keys, "keys.svg")),
    "load": ((load, "load.svg"),),
    "matching": ((matching, "matching.svg"),),
    "scale": ((lag, "lag.svg"),),
}


def draw(benchmark: str, figures: Figures, directory: Path) -> list[Path]:
    """Draw the charts of a benchmark.

    Args:
        benchmark: the name of the benchmark.
        figures: the figures of its JSON.
        directory: the directory for the charts.

    Returns:
        The files of the charts.
    """
    drawn = []
    for chart, name in CHARTS.get(benchmark, ()):
        chart(figures, directory / name)
        drawn.append(directory / name)
    return drawn


def _bars(axes: Axes, spreads: dict[str, dict[str, float]], clip: float, label: str) -> None:
    for place, (name, each) in enumerate(spreads.items()):
        shown = min(each["median"], clip)
        axes.barh(place, shown, height=0.62, color=OURS if name == "gatekeeper" else OTHERS[0])
        if each["median"] < clip:
            axes.plot((each["quartile_1"], each["quartile_3"]), (place, place), color=INK, linewidth=3, alpha=0.6)
        more = " ›" if each["median"] > clip else ""
        _annotate(axes, label.format(each["median"]) + more, (min(each["quartile_3"], clip), place))
    axes.set_yticks(range(len(spreads)), list(spreads))
    axes.tick_params(axis="y", length=0)


def _annotate(axes: Axes, text: str, at: tuple[float, float]) -> None:
    axes.annotate(text, at, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)


@contextmanager
def _axes(path: Path, size: tuple[float, float]) -> Iterator[Axes]:
    with _style():
        figure, axes = plt.subplots(figsize=size)
        yield axes
        figure.tight_layout()
        _save(path)


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


def _save(path: Path) -> None:
    plt.savefig(path, transparent=True, metadata={"Date": None})
    plt.close()
