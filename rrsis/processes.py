"""What the processes of one run agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Answer = TypeVar("Answer")


def on_first_process(question: Callable[[], Answer]) -> Answer:
    """Asks on the first process of a run and gives its answer, or its ValueError, to all of them.

    Args:
        question: what to call.
    """
    answer: list[tuple[Answer | None, str | None]] = [(None, None)]
    if PartialState().is_main_process:
        try:
            answer = [(question(), None)]
        except ValueError as error:
            answer = [(None, str(error))]
    value, fault = broadcast_object_list(answer)[0]
    if fault is not None:
        raise ValueError(fault)
    return value
