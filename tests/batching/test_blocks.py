"""The pool by itself: what is free, what is found, what goes first."""

from __future__ import annotations

from engine.batching.blocks import BlockPool
from engine.batching.digests import extend_chain


def chain(tokens: list[int], tenant: str = "acme") -> list[bytes]:
    digests: list[bytes] = []
    extend_chain(digests, tokens, tenant=tenant, block_tokens=4)
    return digests


def test_blocks_without_a_digest_are_taken_again_before_those_that_can_be_found() -> None:
    pool = BlockPool(4)
    kept, other = pool.take(2) or ()
    pool.register(kept, b"kept")
    pool.give_back([kept])
    pool.give_back([other])
    assert pool.take(1) == [other]
    pool.take(2)
    assert pool.lookup([b"kept"]) == [kept]


def test_the_longest_unused_block_is_forgotten_first_and_only_when_it_is_taken() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2) or ()
    pool.register(first, b"first")
    pool.register(second, b"second")
    pool.give_back([second])
    pool.give_back([first])
    assert pool.free == 2
    assert pool.knows(b"first")
    assert pool.knows(b"second")
    assert pool.take(1) == [second]
    assert not pool.lookup([b"second"])
    assert pool.lookup([b"first"]) == [first]


def test_the_end_of_a_text_is_forgotten_before_its_start() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3) or []
    for index, block in enumerate(blocks):
        pool.register(block, b"%d" % index)
    pool.give_back(blocks)
    pool.take(1)
    assert pool.lookup([b"0", b"1", b"2"]) == blocks[:2]


def test_what_does_not_fit_takes_nothing() -> None:
    pool = BlockPool(3)
    (shared,) = pool.take(1) or ()
    pool.register(shared, b"shared")
    pool.give_back([shared])
    assert pool.take(3, shared=[shared]) is None
    assert pool.take(2, shared=[shared], left_min=1) is None
    assert (pool.free, shared.references) == (3, 0)
    assert pool.take(2, shared=[shared]) is not None
    assert pool.free == 0


def test_a_shared_block_is_free_only_when_the_last_has_given_it_back() -> None:
    pool = BlockPool(2)
    (block,) = pool.take(1) or ()
    pool.take(0, shared=[block])
    pool.give_back([block])
    assert pool.used == 1
    pool.give_back([block])
    assert pool.used == 0


def test_a_block_leaves_the_middle_of_the_free_list_when_it_is_found() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3) or []
    for index, block in enumerate(blocks):
        pool.register(block, b"%d" % index)
        pool.give_back([block])
    pool.take(0, shared=[blocks[1]])
    assert pool.take(2) == [blocks[0], blocks[2]]
    assert pool.take(1) is None


def test_the_second_of_two_equal_blocks_is_not_found_and_does_not_displace_the_first() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2) or ()
    pool.register(first, b"same")
    pool.register(second, b"same")
    pool.give_back([second, first])
    assert pool.lookup([b"same"]) == [first]
    assert pool.take(1) == [second]
    assert pool.lookup([b"same"]) == [first]


def test_only_full_blocks_have_digests_and_each_once() -> None:
    digests = chain([1, 2, 3, 4, 5, 6, 7])
    assert len(digests) == 1
    extend_chain(digests, [1, 2, 3, 4, 5, 6, 7, 8], tenant="acme", block_tokens=4)
    assert digests == chain([1, 2, 3, 4, 5, 6, 7, 8])


def test_equal_tokens_after_another_start_or_of_another_tenant_have_another_digest() -> None:
    ours = chain([1, 2, 3, 4, 5, 6, 7, 8])
    assert ours[1] != chain([9, 2, 3, 4, 5, 6, 7, 8])[1]
    assert not set(ours) & set(chain([1, 2, 3, 4, 5, 6, 7, 8], tenant="globex"))
