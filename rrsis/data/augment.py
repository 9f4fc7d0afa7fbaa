"""Flips of training pictures that keep their expressions true.

.. code-block:: python

    train = FlippedDataset(build_dataset("rrsisd", "train", root), flip="rewrite", seed=42)
    trainer = ReferringTrainer(train_dataset=train, callbacks=[EpochCallback(train)], ...)

and, for a tokenizer that is built from the training expressions, ``build_tokenizer(train.possible_expressions)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from .directions import is_free_of_directions, is_free_of_turning, rewrite
from .types import ReferringDataset, ReferringSample

FLIPS: tuple[str, ...] = ("off", "rewrite")
"""Ways to flip: not at all, or with the expression rewritten (and not where it cannot be)."""


@dataclass(frozen=True)
class Move:
    """One of the eight ways to lay a picture down.

    Attributes:
        transpose: Whether rows become columns, before anything else.
        horizontal: Whether left and right change places.
        vertical: Whether top and bottom do.
    """

    transpose: bool = False
    horizontal: bool = False
    vertical: bool = False

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Moves a picture (H, W, …); transposed, it is (W, H, …). The result has memory of its own."""
        moved = array.swapaxes(0, 1) if self.transpose else array
        moved = moved[:, ::-1] if self.horizontal else moved
        moved = moved[::-1] if self.vertical else moved
        return np.ascontiguousarray(moved)

    def say(self, expression: str) -> str | None:
        """The expression about the moved picture, or None where none is sure to be true."""
        if not self.transpose:
            return rewrite(expression, horizontal=self.horizontal, vertical=self.vertical)
        # Phrases do not turn by a quarter word by word ("in the upper left", "above"): only what has none is turned.
        mirrorings = 1 + self.horizontal + self.vertical
        stays = is_free_of_directions(expression) and (mirrorings % 2 == 0 or is_free_of_turning(expression))
        return expression if stays else None


IDENTITY = Move()
_FLIPS = [Move(False, horizontal, vertical) for horizontal in (False, True) for vertical in (False, True)]
_TURNS = [Move(True, horizontal, vertical) for horizontal in (False, True) for vertical in (False, True)]


class FlippedDataset(ReferringDataset):
    """A data set whose samples are flipped at random, each epoch anew, with their expressions rewritten.

    Of the moves after which a sample's expression can be made true, each is as likely as any other; leaving the sample
    as it is is always among them. What is drawn depends on (seed, epoch, index) alone: not on the number of workers,
    nor on where a resumed run continues.

    Args:
        dataset: What to flip.
        flip: "rewrite", or "off" for the samples as they are.
        quarter_turns: Whether to turn by 90° as well, where the expression names no direction at all.
        seed: Seed of the draws.

    Raises:
        ValueError: ``flip`` is another word, or the seed is negative.
    """

    def __init__(
        self, dataset: ReferringDataset, flip: str = "rewrite", quarter_turns: bool = False, seed: int = 0
    ) -> None:
        if flip not in FLIPS:
            raise ValueError(f"flip: got {flip!r}, due is one of {', '.join(FLIPS)}")
        if seed < 0:
            raise ValueError(f"seed: got {seed}, due is 0 or more")
        self.dataset, self.name, self.split = dataset, dataset.name, dataset.split
        self.flip, self.quarter_turns, self.seed = flip, quarter_turns, seed
        # In shared memory, so that workers that are kept over epochs see it change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch begins; `EpochCallback` does it in training."""
        self._epoch.fill_(epoch)

    def moves(self, expression: str) -> list[tuple[Move, str]]:
        """The moves that an expression allows, each with the expression after it; the first one moves nothing."""
        if self.flip == "off":
            return [(IDENTITY, expression)]
        moves = _FLIPS + _TURNS if self.quarter_turns else _FLIPS
        said = [(move, move.say(expression)) for move in moves]
        return [(move, text) for move, text in said if text is not None]

    def __getitem__(self, index: int) -> ReferringSample:
        position = self._position(index)
        sample = self.dataset[position]
        moves = self.moves(sample.expression)
        draws = np.random.default_rng((self.seed, int(self._epoch), position))
        move, expression = moves[draws.integers(len(moves))]
        if move == IDENTITY:
            return sample
        return dataclasses.replace(
            sample, image=move.apply(sample.image), mask=move.apply(sample.mask), expression=expression
        )

    @property
    def expressions(self) -> Sequence[str]:
        """The expressions of the samples as they are, in their order."""
        return self.dataset.expressions

    @property
    def possible_expressions(self) -> Sequence[str]:
        """All expressions that can come up, the rewritten ones among them: what a vocabulary must know."""
        return [text for expression in self.expressions for _, text in self.moves(expression)]

    @property
    def sample_ids(self) -> Sequence[str]:
        """Names of the samples in their order; flipped ones keep theirs."""
        return self.dataset.sample_ids


class EpochCallback(TrainerCallback):
    """Tells a data set which epoch begins.

    transformers tells samplers alone, and accelerate forwards to data sets in some set-ups and not in others.

    Args:
        dataset: Has ``set_epoch``.
    """

    def __init__(self, dataset: FlippedDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer."""
        # A run that is resumed within an epoch begins with a fraction; sums of fractions may fall just short of one.
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))
