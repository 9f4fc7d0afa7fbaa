"""What keeps a wrong call from being timed, and what keeps its inputs out of the cache."""

import pytest
import torch

from benchmarks import measure


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([torch.tensor([1.0, 2.01])], "is off by"),
        ([torch.tensor([1.0, torch.nan])], "is not finite"),
        ([torch.tensor([[1.0, 2.0]])], "is .1, 2., due is .2,."),
        ([], "returned 0 tensors"),
    ],
)
def test_a_wrong_call_is_refused(outputs, message):
    expected = [torch.tensor([1.0, 2.0]).double()]
    measure.check(lambda: [expected[0].float()], expected, "right")
    with pytest.raises(AssertionError, match=f"wrong: .*{message}"):
        measure.check(lambda: outputs, expected, "wrong")


def test_calls_take_copies_in_turn_that_require_what_the_inputs_do():
    leaf, mask = torch.ones(3, requires_grad=True), torch.tensor([True])
    rotation = measure.rotating(lambda inputs: lambda: inputs, [leaf, mask])
    turns = [rotation() for _ in range(2 * measure.COPIES)]
    assert len({turn[0].data_ptr() for turn in turns}) == measure.COPIES
    assert turns[0] is turns[measure.COPIES]
    assert all(turn[0].requires_grad and turn[0].is_leaf and not turn[1].requires_grad for turn in turns)


def test_backward_alone_can_run_again_and_runs_no_forward():
    leaf, calls = torch.tensor([2.0], requires_grad=True), []

    def call():
        calls.append(1)
        return [leaf**3]

    backward = measure.backward_only(call, [leaf], [torch.ones(1)])
    assert [backward()[0].item() for _ in range(3)] == [12.0] * 3
    assert len(calls) == 1
