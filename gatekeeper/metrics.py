"""Metrics for Prometheus. They are read when scraped, so they cost requests nothing.

gatekeeper itself does not need prometheus_client, so import this module by its own path:

from gatekeeper.metrics import collector
from prometheus_client import REGISTRY

REGISTRY.register(collector(gate))

The values of every label are a closed set. Nothing from requests or rows ever becomes a label, and no account does. The
figures of a gate of several accounts are totals, or those of the worst account, as in `Status`. All figures are those of one
process, and prometheus_client's multiprocess mode ignores custom collectors, so scrape each worker process at its own port.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import NamedTuple, get_args

if find_spec("prometheus_client") is None:
    _missing = "gatekeeper.metrics needs the extra `metrics`: pip install 'widget-gatekeeper[metrics]'"
    raise ImportError(_missing)

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gatekeeper.client import TokenScope
from gatekeeper.errors import RowReason
from gatekeeper.gate.decisions import Reason
from gatekeeper.gate.gatekeeper import Gatekeeper
from gatekeeper.sync.status import State, Status

__all__ = ("collector",)


def collector(gate: Gatekeeper | Mapping[str, Gatekeeper]) -> Collector:
    """Make a collector for a registry of prometheus_client.

    Args:
        gate: the gate, or several gates of one process by name. The names become the label `gate`. All gates share one
            collector, because a registry accepts each metric only once.

    Returns:
        The collector, for `REGISTRY.register`.
    """
    return _Collector(gate)


class _Read(NamedTuple):
    """The state of a gate at one moment."""

    status: Status
    lists: tuple[Status, ...]  # of each account, or the only one
    decisions: Counter[Reason]
    refused_pages: int


# By the value of the label; the key is None for a metric without a label.
_Values = Mapping[str, float] | Mapping[None, float]


class _Metric(NamedTuple):
    family: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    label: str | None
    read: Callable[[_Read], _Values]
    text: str


class _Collector(Collector):
    def __init__(self, gate: Gatekeeper | Mapping[str, Gatekeeper]) -> None:
        self._labels = ("gate",) if isinstance(gate, Mapping) else ()
        self._gates = {(name,): each for name, each in gate.items()} if isinstance(gate, Mapping) else {(): gate}

    def collect(self) -> Iterator[Metric]:
        """Read each gate once, and yield its metrics."""
        reads = {names: _read(gate) for names, gate in self._gates.items()}
        for metric in _METRICS:
            labels = self._labels if metric.label is None else (*self._labels, metric.label)
            family = metric.family(metric.name, metric.text, labels=labels)
            for names, read in reads.items():
                for value_of_label, value in metric.read(read).items():
                    family.add_metric(names if value_of_label is None else (*names, value_of_label), value)
            yield family


def _read(gate: Gatekeeper) -> _Read:
    status = gate.status
    has_no_account = status.age is None and status.state == "fresh"
    lists = () if has_no_account else tuple(gate.statuses.values()) or (status,)
    return _Read(status, lists, gate.decisions, len(gate.refusals))


def _count(name: str) -> Callable[[_Read], _Values]:
    return lambda read: {None: read.status.counters.get(name, 0)}


def _counts(prefix: str, values: tuple[str, ...]) -> Callable[[_Read], _Values]:
    return lambda read: {value: read.status.counters.get(f"{prefix}_{value}", 0) for value in values}


def _maybe(value: float | None) -> _Values:
    return {} if value is None else {None: value}


_METRICS = (
    _Metric(
        CounterMetricFamily,
        "gatekeeper_decisions",
        "reason",
        lambda read: {reason.value: read.decisions[reason] for reason in Reason},
        "Decided requests, by the reason of the decision.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_enforcing",
        None,
        lambda read: {None: float(read.status.enforce)},
        "1 while the gate turns refused requests away, 0 while it only observes.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_observed_requests",
        None,
        lambda read: {None: read.status.observed},
        "Requests let through because the gate only observes; enforcing, it would have refused them.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_refused_pages",
        None,
        lambda read: {None: read.refused_pages},
        "Pages refused with known keys, as far as they are kept: 500 at most, the most frequent ones.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_refreshes",
        "outcome",
        _counts("refresh", ("changed", "unchanged", "failed")),
        "Fetches of the list of widget keys, by outcome.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_list_age_seconds",
        None,
        lambda read: _maybe(read.status.age),
        "Seconds since the current list was requested from the hub, also for one from the snapshot; absent without a list.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_state",
        "state",
        lambda read: {state: float(state == read.status.state) for state in get_args(State)},
        "1 for the current state of the list, 0 for the others.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_accounts",
        "state",
        lambda read: {state: sum(each.state == state for each in read.lists) for state in get_args(State)},
        "Accounts of the gate, by the state of their lists; a gate of one source has one.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_list_from_snapshot",
        None,
        lambda read: {None: float(read.status.from_snapshot)},
        "1 while the current list comes from the snapshot on disk.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_list_live",
        None,
        lambda read: {None: float(read.status.is_live)},
        "1 while the hub tells of each change at once, 0 while its list is polled.",
    ),
    _Metric(
        GaugeMetricFamily, "gatekeeper_keys", None, lambda read: {None: read.status.keys}, "Widget keys, disabled or not."
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_ambiguous_keys",
        None,
        lambda read: {None: sum(len(each.ambiguous) for each in read.lists)},
        "Last 8 characters that several keys share; those keys are ambiguous and refused.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_removals_held",
        None,
        lambda read: {None: read.status.held},
        "Keys missing from the last list but still valid, because removing so many may be a mistake.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_rows_rejected",
        "reason",
        _counts("rows_rejected", get_args(RowReason)),
        "Malformed rows in all accepted lists that differed from the one before, by what is wrong.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_list_rejected_rows",
        None,
        lambda read: {None: read.status.rejected_rows},
        "Malformed rows of the last accepted list; their keys stay unchanged.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_duplicate_ids",
        None,
        _count("duplicate_ids"),
        "Duplicate ids in a list.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_revocations",
        None,
        _count("revocations"),
        "Keys newly disabled by a list.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_revocation_lag_seconds",
        None,
        lambda read: _maybe(read.status.revocation_lag),
        "Seconds between disabling a key at the hub and refusing it here; the maximum of the last list that disabled any.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_streams_closed",
        None,
        _count("streams_closed"),
        "WebSockets and streaming responses closed because their key or page is no longer allowed.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_snapshots",
        "outcome",
        _counts("snapshot", ("saved", "failed")),
        "Snapshots of the list on disk: saved, or failed to be written or read.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_refresher_restarts",
        None,
        _count("refresher_restarts"),
        "Restarts of refreshers that had crashed.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_token_scope",
        "scope",
        lambda read: {scope: float(scope == read.status.token_scope) for scope in get_args(TokenScope)},
        "1 for the scope of the hub's token, 0 for the others; 0 for all while it is unknown.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_usage_reports",
        "outcome",
        _counts("usage", ("reported", "failed")),
        "Usage reports to the hub, by outcome.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_refused_reports",
        "outcome",
        _counts("refused", ("reported", "failed")),
        "Reports on refused pages to the hub, by outcome.",
    ),
    _Metric(
        CounterMetricFamily,
        "gatekeeper_gate_reports",
        "outcome",
        _counts("gate", ("reported", "failed")),
        "Reports of the gate on itself to the hub, by outcome.",
    ),
    _Metric(
        GaugeMetricFamily,
        "gatekeeper_event_loop_lag_seconds",
        None,
        lambda read: {None: read.status.event_loop_lag},
        "Seconds by which the refresher's waits ended too late; the maximum of the last minute or two.",
    ),
)
