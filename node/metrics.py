"""Prometheus metrics of one program. Labels take values from a declared set, and nothing else.

A name of an agent, an address or anything else that a peer chooses never becomes a label: a value
outside the declared set is counted as ``other``. What an operator has written may be a label, in
bounds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Info, generate_latest
from prometheus_client import Counter as _Counter
from prometheus_client import Histogram as _Histogram
from prometheus_client.metrics_core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from identity import Code

OTHER: Final = "other"
LABEL_VALUES_MAX: Final = 256
PREFIX: Final = "sidelink_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# From the cost of one policy look-up to the deadline of a handshake.
SECONDS_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Labels:
    """The declared values of each label of one metric, of which there are few combinations."""

    def __init__(self, labels: Mapping[str, Iterable[str]]) -> None:
        self._allowed = {name: frozenset(values) for name, values in labels.items()}
        for name, values in self._allowed.items():
            if len(values) > LABEL_VALUES_MAX:
                raise ValueError(f"label {name} declares {len(values)} values")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._allowed)

    def bounded(self, given: Mapping[str, str]) -> dict[str, str]:
        if given.keys() != self._allowed.keys():
            raise ValueError(f"labels {sorted(given)} are not {sorted(self._allowed)}")
        return {
            name: value if value in self._allowed[name] else OTHER for name, value in given.items()
        }


class Counter:
    """Counts up from zero since the start of the program."""

    def __init__(self, metric: _Counter, labels: _Labels) -> None:
        self._metric = metric
        self._labels = labels
        # By the labels as they were given, when these are declared: to look a child up anew takes
        # twice as long as to count.
        self._known: dict[tuple[tuple[str, str], ...], _Counter] = {}

    def increment(self, amount: float = 1, /, **labels: str) -> None:
        given = tuple(labels.items())
        child = self._known.get(given)
        if child is None:
            bounded = self._labels.bounded(labels)
            child = self._metric.labels(**bounded) if bounded else self._metric
            if bounded == labels:
                self._known[given] = child
        child.inc(amount)


class Histogram:
    """Counts observations into buckets of seconds."""

    def __init__(self, metric: _Histogram, labels: _Labels) -> None:
        self._metric = metric
        self._labels = labels

    def observe(self, seconds: float, /, **labels: str) -> None:
        bounded = self._labels.bounded(labels)
        (self._metric.labels(**bounded) if bounded else self._metric).observe(seconds)


class _ReadCounter(Collector):
    """A counter whose total, or whose totals, live elsewhere."""

    def __init__(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float | Mapping[str, float]],
        label: str | None,
    ) -> None:
        self._name = name
        self._help_text = help_text
        self._read = read
        self._label = label

    def collect(self) -> Iterable[Metric]:
        found = self._read()
        if not isinstance(found, Mapping):
            yield CounterMetricFamily(self._name, self._help_text, value=found)
            return
        assert self._label is not None
        family = CounterMetricFamily(self._name, self._help_text, labels=[self._label])
        for value, total in found.items():
            family.add_metric([value], total)
        yield family


class _ReadInfo(Collector):
    """Texts about the program that change: one sample, of what they are now."""

    def __init__(self, name: str, help_text: str, read: Callable[[], Mapping[str, str]]) -> None:
        self._name = name
        self._help_text = help_text
        self._read = read

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily(self._name, self._help_text, value=dict(self._read()))


def by_code(counts: Mapping[Code, int]) -> dict[str, int]:
    """What was counted by code, as metrics and the status show it. The registry bounds the set."""
    return {code.text: count for code, count in counts.items()}


class Metrics:
    """The registry of one program: nothing global, so two programs fit into one process."""

    def __init__(self, program: str, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        Info(PREFIX + "program", "Which program this is.", registry=self._registry).info(
            {"program": program, "version": version}
        )

    def counter(self, name: str, help_text: str, **labels: Iterable[str]) -> Counter:
        """``labels`` gives each label and all the values it may take."""
        declared = _Labels(labels)
        metric = _Counter(PREFIX + name, help_text, declared.names, registry=self._registry)
        return Counter(metric, declared)

    def histogram(
        self,
        name: str,
        help_text: str,
        *,
        buckets: Sequence[float] = SECONDS_BUCKETS,
        **labels: Iterable[str],
    ) -> Histogram:
        declared = _Labels(labels)
        metric = _Histogram(
            PREFIX + name,
            help_text,
            declared.names,
            buckets=buckets,
            registry=self._registry,
        )
        return Histogram(metric, declared)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A value that ``read`` gives whenever somebody looks."""
        Gauge(PREFIX + name, help_text, registry=self._registry).set_function(read)

    def counter_read(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float | Mapping[str, float]],
        *,
        label: str | None = None,
    ) -> None:
        """A total that a core keeps by itself, read whenever somebody looks.

        With a ``label`` there are several: ``read`` gives one for each of its values, which are of
        a fixed set.
        """
        self._registry.register(_ReadCounter(PREFIX + name, help_text, read, label))

    def info(self, name: str, help_text: str, read: Callable[[], Mapping[str, str]]) -> None:
        """Texts of ours as labels of one sample, ``<name>_info``. Never what a peer chooses."""
        self._registry.register(_ReadInfo(PREFIX + name, help_text, read))

    def value(self, name: str, /, **labels: str) -> float | None:
        """One sample, for tests and status; None when there is none."""
        return self._registry.get_sample_value(PREFIX + name, labels)

    def text(self) -> bytes:
        """The exposition format that Prometheus scrapes."""
        return generate_latest(self._registry)
