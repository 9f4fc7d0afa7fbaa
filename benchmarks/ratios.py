"""Times of the calls of one group as multiples of ours and of the limit lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from benchmarks.measure import OURS
from benchmarks.operators import BACKWARD, BARE, BOTH, FORWARD

KINDS = {"ours": "ours", "limit": "bare", "forward_limit": "bare forward"}
"""What times are divided by, and its name in tables: ours; the bare products of the same pass, the limit line; those of
the forward pass, where that is another one (goals for the backward are stated as multiples of it)."""


def denominators(names: Collection[str]) -> dict[str, str]:
    """Which implementation each kind of ratio divides by; a kind is missing where the group has none.

    Args:
        names: the implementations of a group.
    """
    present = [BARE[name] for name in (BACKWARD, BOTH, FORWARD) if BARE[name] in names]
    found = {"ours": OURS} if OURS in names else {}
    return found | dict(zip(("limit", "forward_limit"), present, strict=False))


def ratios(seconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Ratios of every implementation of one group.

    Args:
        seconds: implementation → its time.

    Returns:
        implementation → kind → ratio; see `denominators`.
    """
    found = {kind: seconds[name] for kind, name in denominators(seconds).items()}
    return {name: {kind: time / base for kind, base in found.items()} for name, time in seconds.items()}
