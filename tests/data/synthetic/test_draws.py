import collections

import pytest

from rrsis.data.synthetic.draws import Draws


def test_the_stream_is_pinned():
    # PCG64 seeded through SeedSequence: numpy keeps these streams; every scene hangs on them.
    draws = Draws((1, 2, 3))
    assert [draws.random() for _ in range(3)] == [0.6704722626516632, 0.1110146366693816, 0.5115090823948739]
    assert draws.noise(1, 4).tolist() == [[61, 135, 232, 57]]


def test_streams_of_different_keys_differ_and_blocks_do_not_matter():
    first = [Draws((0, 0, 1)).random() for _ in range(2)]
    assert first[0] == first[1] != Draws((0, 0, 2)).random()
    small, large = Draws((5,), block=3), Draws((5,), block=1000)
    assert [small.random() for _ in range(20)] == [large.random() for _ in range(20)]


def test_whole_numbers_cover_their_range_evenly():
    draws = Draws((7,))
    counts = collections.Counter(draws.integer(-1, 2) for _ in range(4000))
    assert set(counts) == {-1, 0, 1, 2}
    assert min(counts.values()) > 850


def test_weights_are_kept_and_zero_never_comes():
    draws = Draws((8,))
    counts = collections.Counter(draws.weighted("abc", (1.0, 0.0, 3.0)) for _ in range(4000))
    assert counts["b"] == 0
    assert counts["c"] / counts["a"] == pytest.approx(3.0, rel=0.15)


def test_shuffling_keeps_the_items_and_reaches_every_order():
    draws = Draws((9,))
    items = (1, 2, 3)
    orders = {tuple(draws.shuffled(items)) for _ in range(200)}
    assert len(orders) == 6
    assert all(sorted(order) == [1, 2, 3] for order in orders)
    assert items == (1, 2, 3)
