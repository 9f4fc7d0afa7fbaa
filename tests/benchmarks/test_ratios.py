"""Ratios to ours and to the limit lines."""

import pytest

from benchmarks.measure import OURS
from benchmarks.operators import BACKWARD, BARE, BOTH, FORWARD, limits
from benchmarks.ratios import ratios


def test_a_forward_group_has_one_limit():
    found = ratios({OURS: 2.0, "eager": 5.0, BARE[FORWARD]: 1.6})
    assert found["eager"] == pytest.approx({"ours": 2.5, "limit": 3.125})
    assert found[OURS] == pytest.approx({"ours": 1.0, "limit": 1.25})
    assert found[BARE[FORWARD]] == pytest.approx({"ours": 0.8, "limit": 1.0})


@pytest.mark.parametrize("pass_name", [BACKWARD, BOTH])
def test_the_limit_of_another_pass_is_its_own_products_and_the_forward_ones_stand_beside(pass_name):
    found = ratios({BARE[FORWARD]: 1.0, OURS: 6.0, BARE[pass_name]: 4.0})
    assert found[OURS] == pytest.approx({"ours": 1.0, "limit": 1.5, "forward_limit": 6.0})


def test_what_was_not_timed_is_not_divided_by():
    assert ratios({"eager": 5.0}) == {"eager": {}}
    assert ratios({"eager": 5.0, OURS: 2.0})["eager"] == {"ours": 2.5}


def test_every_pass_has_the_forward_products_and_its_own():
    assert limits(FORWARD) == (BARE[FORWARD],)
    assert limits(BACKWARD) == (BARE[FORWARD], BARE[BACKWARD])
