"""Splits: which version a bucket falls to, by weighted rendezvous.

Every version draws a number for the bucket, by a hash of the bucket and the version's name alone,
stretched by its weight; the best draw wins. So each version wins in proportion to its weight, and:

- A bucket moves from version a to version b only if b's weight grew by a larger factor than a's.
- Hence the version whose weight grew most, as a factor of what it was, loses no bucket; of two
  versions the one whose share grows never loses one, whatever their names and order; weight added
  for a new version only moves buckets to it, and a version that is removed only moves its own.
- Not promised, because it cannot be: that with three versions or more, *each* version whose share
  grew keeps all its buckets. If it held, a version's buckets would depend on its own share alone;
  then a's at share x and b's at 1 - x would be complements, and so would a's and c's, and b and c
  would have the same buckets at every share.

A layout of intervals (cumulative weights) needs one hash less and keeps the promise for two
versions only: growing the first of three shifts the intervals of all others, and so their buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, log
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from engine.routing.errors import PolicyInvalid
from events.catalogue.endpoints import Shadow

_HASHES: Final = 2**64
_TO_UNIT: Final = 2.0**-64


class Split(msgspec.Struct, frozen=True):
    """Versions that take traffic, in order of name: (version, hash seed, total weight / weight)."""

    arms: tuple[tuple[str, int, float], ...]

    @property
    def versions(self) -> tuple[str, ...]:
        """Those with a weight above zero."""
        return tuple(version for version, _, _ in self.arms)


class Mirror(msgspec.Struct, frozen=True):
    """A compiled shadow: takes the buckets whose hash lies below the threshold."""

    version: str
    seed: int
    threshold: int


def compile_split(weights: Mapping[str, float], *, path: str) -> Split:
    """Weights are relative; zero never wins. Raises PolicyInvalid below `path`."""
    for version, weight in weights.items():
        if not isfinite(weight) or weight < 0:
            raise PolicyInvalid(f"{path}.{version}", f"weight {weight} is not 0 or more")
    total = sum(weights.values())
    if not 0 < total < inf:
        raise PolicyInvalid(path, f"the weights add up to {total}")
    positive = sorted((version, weight) for version, weight in weights.items() if weight > 0)
    for version, weight in positive:
        if not isfinite(total / weight):
            raise PolicyInvalid(f"{path}.{version}", f"weight {weight} of {total} is too small")
    return Split(
        tuple(
            (version, xxh3_64_intdigest(version.encode()), total / weight)
            for version, weight in positive
        )
    )


def compile_mirror(shadow: Shadow, *, path: str) -> Mirror:
    """Raises PolicyInvalid below `path`."""
    if not 0 <= shadow.fraction <= 1:
        raise PolicyInvalid(f"{path}.fraction", f"{shadow.fraction} is not between 0 and 1")
    return Mirror(
        shadow.version,
        xxh3_64_intdigest(b"shadow\0" + shadow.version.encode()),
        int(shadow.fraction * _HASHES),
    )


def choose(split: Split, bucket: bytes) -> str:
    """The version that wins the bucket (its four bytes)."""
    if len(split.arms) == 1:
        return split.arms[0][0]
    chosen, best = "", -inf
    for version, seed, stretch in split.arms:
        # -log of a uniform number is exponential; the least of several stretched ones is each with
        # the probability of its weight. One is added because log(0) is not a number.
        draw = log((xxh3_64_intdigest(bucket, seed) + 1) * _TO_UNIT) * stretch
        if draw > best:
            chosen, best = version, draw
    return chosen


def takes(mirror: Mirror, bucket: bytes) -> bool:
    """Does the shadow get the bucket? Independent of `choose`; a larger fraction only adds."""
    return xxh3_64_intdigest(bucket, mirror.seed) < mirror.threshold
