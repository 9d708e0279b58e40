"""Blocks of requests: what an admission needs, what growth needs, what can be shared."""

from __future__ import annotations

from engine.batching.blocks import BlockPool
from engine.batching.digests import extend_chain
from engine.batching.generation import Generation


class Memory:
    """The pool, seen by requests."""

    __slots__ = ("block_bytes", "block_tokens", "pool", "prefix_hits", "prefix_queries")

    def __init__(self, pool: BlockPool, *, block_tokens: int, block_bytes: int) -> None:
        self.pool = pool
        self.block_tokens = block_tokens
        self.block_bytes = block_bytes
        self.prefix_queries = 0
        """Tokens of prompts that were admitted."""
        self.prefix_hits = 0
        """Of those, tokens that were not computed, as another request had."""

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def enter(self, generation: Generation) -> None:
        """Name the full blocks of a new request's prompt: once, whatever happens to it later."""
        self._extend_chain(generation)

    def admit(self, generation: Generation, *, left_min: int) -> bool:
        """Blocks for all its tokens, shared ones first; False if that leaves too few free.

        Its last token is always computed, as it is to be followed.
        """
        tokens = len(generation.tokens)
        shared = self.pool.lookup(generation.digests[: (tokens - 1) // self.block_tokens])
        needed = self.blocks_for(tokens)
        added = self.pool.take(needed - len(shared), shared=shared, left_min=left_min)
        if added is None:
            return False
        generation.blocks = shared + added
        generation.table = [block.number for block in generation.blocks]
        generation.room = needed * self.block_tokens
        generation.computed = len(shared) * self.block_tokens
        generation.registered = len(shared)
        if not generation.preemptions:
            self.prefix_queries += tokens
            self.prefix_hits += generation.computed
            generation.cached = generation.computed
        return True

    def outlasts(self, generation: Generation, tokens: int) -> bool:
        """Whether more than so many of its tokens would have to be computed before it answers.

        Looks at one block: if that is known, those before it are, or were a moment ago.
        """
        blocks = self.blocks_for(len(generation.tokens) - tokens)
        if blocks <= 0:
            return False
        digests = generation.digests
        return blocks > len(digests) or not self.pool.knows(digests[blocks - 1])

    def grow(self, generation: Generation) -> bool:
        """One more block; False if none is free."""
        added = self.pool.take(1)
        if added is None:
            return False
        generation.blocks += added
        generation.table.append(added[0].number)
        generation.room += self.block_tokens
        return True

    def share(self, generation: Generation) -> None:
        """Offer the blocks that have become full, and are computed, to others."""
        full = generation.computed // self.block_tokens
        if full > len(generation.digests):
            self._extend_chain(generation)
        for index in range(generation.registered, full):
            self.pool.register(generation.blocks[index], generation.digests[index])
        generation.registered = full

    def release(self, generation: Generation) -> None:
        """All of its blocks. What it has computed may be found again, while nobody takes them."""
        self.pool.give_back(generation.blocks)
        generation.blocks = []
        generation.table = []
        generation.room = generation.computed = generation.registered = 0

    def _extend_chain(self, generation: Generation) -> None:
        extend_chain(
            generation.digests,
            generation.tokens,
            tenant=generation.request.tenant,
            block_tokens=self.block_tokens,
        )
