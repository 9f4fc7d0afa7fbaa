"""The bare products are those of the operator: put together they give its outputs and its gradients."""

import pytest
import torch

from benchmarks import bsc, twin_stream
from benchmarks.operators import BACKWARD, BOTH, FORWARD, expected_of, multiply


@pytest.fixture(params=[1, 3], ids=["one image", "batch"])
def batch(request):
    torch.manual_seed(0)
    return request.param


def double(case_products):
    return multiply([(left.double(), right.double()) for left, right in case_products])


def assert_equals(found, due):
    torch.testing.assert_close(found, due.double().reshape(found.shape), rtol=1e-4, atol=1e-5)


def test_spatial_correlation(batch):
    case = bsc.make_case((batch, 30, 8, 2, 5))
    _, painted, pooled = double(case.products[FORWARD]())
    for found, due in zip((painted, pooled), expected_of(case, FORWARD), strict=True):
        assert_equals(found, due)
    scores, _, _, through_scores, through_pool, keys, values = double(case.products[BACKWARD]())
    due_pixels, due_keys, due_values, _ = expected_of(case, BACKWARD)
    assert_equals(through_scores + through_pool, due_pixels)
    assert_equals(keys, due_keys)
    assert_equals(values, due_values)
    assert scores.shape == (batch, 10, 30)
    assert len(case.products[BOTH]()) == 10


def test_twin_stream(batch):
    case = twin_stream.make_case((batch, 30, 8, 2, 3))
    _, pooled = double(case.products[FORWARD]())
    target, background = expected_of(case, FORWARD)
    assert_equals(pooled, torch.cat([target.flatten(1, 2), background.flatten(1, 2)], 1))
    *_, through_scores, through_pool, queries = double(case.products[BACKWARD]())
    due_pixels, due_target, due_background, _ = expected_of(case, BACKWARD)
    assert_equals(through_scores + through_pool, due_pixels)
    assert_equals(queries, torch.cat([due_target.flatten(1, 2), due_background.flatten(1, 2)], 1))


def test_the_same_numbers_in_fp32_have_the_oracle_of_bf16():
    case = bsc.make_case((1, 12, 8, 2, 5), torch.bfloat16)
    for found, due in zip(expected_of(bsc.in_fp32(case), BACKWARD), expected_of(case, BACKWARD), strict=True):
        assert torch.equal(found, due)
