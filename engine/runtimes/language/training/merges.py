"""Byte pair encoding, learnt: which pairs of tokens become tokens of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from engine.runtimes.language.tokenizer import FIRST_MERGED, MARKS, merge_pair, pieces


def learnt_merges(texts: Iterable[str], *, vocabulary: int) -> list[tuple[int, int]]:
    """The pair that is most frequent, again and again, until there are `vocabulary` tokens or no
    pair is left. Of equally frequent pairs the lowest tokens come first: the same texts give the
    same merges."""
    counts = Counter(piece for text in texts for piece in pieces(text))
    spelt = {piece: [MARKS + byte for byte in piece.encode()] for piece in counts}
    merges: list[tuple[int, int]] = []
    while FIRST_MERGED + len(merges) < vocabulary:
        pairs: Counter[tuple[int, int]] = Counter()
        for piece, tokens in spelt.items():
            for pair in pairwise(tokens):
                pairs[pair] += counts[piece]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = FIRST_MERGED + len(merges)
        spelt = {piece: merge_pair(tokens, best, merged) for piece, tokens in spelt.items()}
        merges.append(best)
    return merges
