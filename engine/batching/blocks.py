"""The pool of KV blocks: who refers to which block, and what of it can be found again.

Guarantees: a block is free, or referred to, never both, and `free + used == total` between any two
calls. What is taken was free; a block is given back as often as it was taken. A digest finds the
block that was registered under it until that block is taken for something else: keeping prefixes
costs nothing, and the longest unused goes first.

The free list is doubly linked through the blocks themselves, so that a block which is found by its
digest leaves the middle of the list at the same cost as its head.
"""

from __future__ import annotations

from collections.abc import Sequence


class Block:
    """One block. Its fields are the pool's to change."""

    __slots__ = ("digest", "following", "number", "preceding", "references")

    def __init__(self, number: int) -> None:
        self.number = number
        self.references = 0
        self.digest: bytes | None = None
        """Of the tokens up to its end, if it is full and can be found."""
        self.preceding = self
        self.following = self


class FreeList:
    """Blocks without references, in the order in which they are to be taken."""

    __slots__ = ("_border", "length")

    def __init__(self) -> None:
        self._border = Block(-1)
        self.length = 0

    def append(self, block: Block) -> None:
        """To be taken last."""
        self._insert(block, self._border.preceding, self._border)

    def prepend(self, block: Block) -> None:
        """To be taken first."""
        self._insert(block, self._border, self._border.following)

    def pop(self) -> Block:
        """The first. The list must not be empty."""
        assert self.length
        block = self._border.following
        self.remove(block)
        return block

    def remove(self, block: Block) -> None:
        """From wherever it stands."""
        block.preceding.following = block.following
        block.following.preceding = block.preceding
        self.length -= 1

    def _insert(self, block: Block, before: Block, after: Block) -> None:
        block.preceding, block.following = before, after
        before.following = after.preceding = block
        self.length += 1


class BlockPool:
    """The blocks of one executor."""

    __slots__ = ("_blocks", "_found", "_free")

    def __init__(self, blocks: int) -> None:
        self._blocks = [Block(number) for number in range(blocks)]
        self._found: dict[bytes, Block] = {}
        self._free = FreeList()
        for block in self._blocks:
            self._free.append(block)

    @property
    def total(self) -> int:
        return len(self._blocks)

    @property
    def free(self) -> int:
        return self._free.length

    @property
    def used(self) -> int:
        return len(self._blocks) - self._free.length

    def knows(self, digest: bytes) -> bool:
        """Whether it finds a block."""
        return digest in self._found

    def lookup(self, digests: Sequence[bytes]) -> list[Block]:
        """The blocks of the longest beginning of `digests` that is known. Takes nothing."""
        blocks: list[Block] = []
        for digest in digests:
            block = self._found.get(digest)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def take(
        self, count: int, *, shared: Sequence[Block] = (), left_min: int = 0
    ) -> list[Block] | None:
        """`count` new blocks, and one more reference to each of `shared`; all of it or nothing.

        None if it does not fit and leave `left_min` blocks free. What the new blocks held is
        forgotten here and nowhere else.
        """
        idle = sum(1 for block in shared if not block.references)
        if count + idle + left_min > self._free.length:
            return None
        for block in shared:
            if not block.references:
                self._free.remove(block)
            block.references += 1
        return [self._taken() for _ in range(count)]

    def give_back(self, blocks: Sequence[Block]) -> None:
        """Drop a reference to each; in reverse, as the end of a text is worth less than its start.

        What can be found again goes to the end of the free list, anything else to its front.
        """
        for block in reversed(blocks):
            assert block.references
            block.references -= 1
            if block.references:
                continue
            if block.digest is None:
                self._free.prepend(block)
            else:
                self._free.append(block)

    def register(self, block: Block, digest: bytes) -> None:
        """From now on `digest` finds the block, which must be full, computed and referred to.

        Does nothing if another block is found by it already.
        """
        assert block.references
        if self._found.setdefault(digest, block) is block:
            block.digest = digest

    def _taken(self) -> Block:
        block = self._free.pop()
        if block.digest is not None:
            del self._found[block.digest]
            block.digest = None
        block.references = 1
        return block
