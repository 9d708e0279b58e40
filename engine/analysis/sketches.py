"""Latency sketches: merged, and read, bin by bin.

A bin is read as the one value that is within the sketch's relative accuracy of all it may hold, so
quantiles and means of squares carry that error; counts, sums and extremes are exact. Sketches of
different accuracy can be merged: the finer one is read in the bins of the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import ceil, inf, log

from engine.analysis.means import Moments
from events.catalogue.traffic import LatencySketch


class Merged:
    """Sketches, added up. Of one accuracy: the first's."""

    __slots__ = ("_sketch_bins", "accuracy", "max_ms", "min_ms", "sum_ms", "zeros")

    def __init__(self) -> None:
        self.accuracy = 0.0
        self._sketch_bins: dict[int, int] = {}
        self.zeros = 0
        self.sum_ms = 0.0
        self.min_ms = inf
        self.max_ms = -inf

    def add(self, sketch: LatencySketch) -> None:
        if not self.accuracy:
            self.accuracy = sketch.relative_accuracy
        bins = self._sketch_bins
        for index, count in _bins_at(sketch, self.accuracy):
            bins[index] = bins.get(index, 0) + count
        self.zeros += sketch.zeros
        self.sum_ms += sketch.sum_ms
        self.min_ms = min(self.min_ms, sketch.min_ms)
        self.max_ms = max(self.max_ms, sketch.max_ms)

    @property
    def count(self) -> int:
        return self.zeros + sum(self._sketch_bins.values())

    def sketch(self) -> LatencySketch | None:
        """The sum as one sketch; None of nothing."""
        if not self.count:
            return None
        return LatencySketch(
            relative_accuracy=self.accuracy,
            bins=dict(sorted(self._sketch_bins.items())),
            zeros=self.zeros,
            sum_ms=self.sum_ms,
            min_ms=self.min_ms,
            max_ms=self.max_ms,
        )


def merge(sketches: Iterable[LatencySketch]) -> LatencySketch | None:
    """The sketch of all their latencies; None of none."""
    merged = Merged()
    for sketch in sketches:
        merged.add(sketch)
    return merged.sketch()


def count(sketch: LatencySketch) -> int:
    """How many latencies it holds."""
    return sketch.zeros + sum(sketch.bins.values())


def quantile(sketch: LatencySketch, share: float) -> float:
    """The latency in milliseconds that `share`, 0 to 1, of them do not exceed.

    Within the relative accuracy of the one of that rank. Raises ValueError for an empty sketch.
    """
    total = count(sketch)
    if not total:
        raise ValueError("an empty sketch has no quantiles")
    rank = share * (total - 1) - sketch.zeros
    if rank < 0:
        return 0.0
    for index in sorted(sketch.bins):
        rank -= sketch.bins[index]
        if rank < 0:
            break
    value = _value(sketch.relative_accuracy, index)
    return min(max(value, sketch.min_ms), sketch.max_ms)


def count_above(sketch: LatencySketch, limit_ms: float) -> int:
    """How many exceed the limit; of those in the limit's own bin, none."""
    if limit_ms <= 0.0:
        return sum(sketch.bins.values())
    limit = _index(sketch.relative_accuracy, limit_ms)
    return sum(count for index, count in sketch.bins.items() if index > limit)


def moments(sketch: LatencySketch) -> Moments:
    """Count and mean exactly; squares from the bins, never too small by what a bin hides."""
    accuracy = sketch.relative_accuracy
    read = squares = 0.0
    for index, n in sketch.bins.items():
        value = _value(accuracy, index)
        read += n * value
        squares += n * value * value
    return Moments(
        count=count(sketch),
        total=sketch.sum_ms,
        read=read,
        squares=squares * (1.0 + accuracy**2),
    )


def _growth(accuracy: float) -> float:
    return (1.0 + accuracy) / (1.0 - accuracy)


@lru_cache(maxsize=8_192)
def _value(accuracy: float, index: int) -> float:
    growth = _growth(accuracy)
    return float(2.0 * growth**index / (1.0 + growth))


@lru_cache(maxsize=1_024)
def _index(accuracy: float, value_ms: float) -> int:
    return ceil(log(value_ms) / log(_growth(accuracy)))


def _bins_at(sketch: LatencySketch, accuracy: float) -> Iterable[tuple[int, int]]:
    own = sketch.relative_accuracy
    if own == accuracy:
        return sketch.bins.items()
    return ((_index(accuracy, _value(own, index)), n) for index, n in sketch.bins.items())
