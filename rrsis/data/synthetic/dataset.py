"""SynthRRSIS: the data set that is generated, made anew on every machine from its seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..types import SPLITS, ReferringDataset, ReferringSample, check_split
from .config import SynthConfig
from .draws import LAYOUT, RENDER, WORDS, Draws
from .expressions import make_statements
from .layout import Layout, make_layout
from .render import render
from .scene import Scene, Statement

NUM_SCENES: dict[str, int] = {"train": 4000, "val": 100, "test": 250}
"""Scenes of each split where nothing else is asked for."""

ATTEMPTS = 64
"""After how many landscapes without enough to say a configuration is given up."""


class SynthRRSIS(ReferringDataset):
    """Procedural aerial scenes with expressions that each refer to exactly one object.

    The same (seed, split, scene index, config) gives the same scene, whatever was asked for before. Scenes are made
    when first asked for and then kept in memory (4 bytes a pixel), so that later epochs cost nothing; what is said is
    known without rendering.

    Args:
        split: "train", "val" or "test"; the splits share no scene.
        num_scenes: How many scenes; `NUM_SCENES` by default.
        seed: Seed of the whole data set.
        config: Difficulty: a `SynthConfig`, or the name of one ("default", "easy", "hard", "relations").
        cache: Whether all rendered scenes are kept, and not just the latest.

    Raises:
        ValueError: An unknown split, a config of an unknown name, fewer than one scene.
    """

    name = "synthetic"

    def __init__(
        self,
        split: str = "train",
        num_scenes: int | None = None,
        seed: int = 0,
        config: SynthConfig | str = "default",
        cache: bool = True,
    ) -> None:
        self.split = check_split(split)
        self.num_scenes = NUM_SCENES[split] if num_scenes is None else int(num_scenes)
        if self.num_scenes < 1:
            raise ValueError(f"num_scenes: got {num_scenes}, due is at least 1")
        if seed < 0:
            raise ValueError(f"seed: got {seed}, due is 0 or more")
        self.seed = int(seed)
        self.config = SynthConfig.named(config) if isinstance(config, str) else config
        self.cache = cache
        self._plans: dict[int, tuple[Layout, tuple[Statement, ...], int]] = {}
        self._pixels: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.num_scenes * self.config.expressions

    def _draws(self, index: int, attempt: int, stream: int) -> Draws:
        return Draws((self.seed, SPLITS.index(self.split), index, attempt, stream))

    def plan(self, index: int) -> tuple[Layout, tuple[Statement, ...]]:
        """Layout and expressions of a scene, without rendering it."""
        return self._plan(index)[:2]

    def _plan(self, index: int) -> tuple[Layout, tuple[Statement, ...], int]:
        if index in self._plans:
            return self._plans[index]
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"index: got {index}, {self.name}/{self.split} has {self.num_scenes} scenes")
        for attempt in range(ATTEMPTS):
            layout = make_layout(self._draws(index, attempt, LAYOUT), self.config)
            if len(layout.objects) < self.config.objects[0]:
                continue
            statements = make_statements(layout.objects, self.config, self._draws(index, attempt, WORDS))
            if statements is not None:
                self._plans[index] = (layout, statements, attempt)
                return self._plans[index]
        raise ValueError(f"config: no scene with {self.config.expressions} expressions comes out of {self.config}")

    def scene(self, index: int) -> Scene:
        """A scene with its picture, label map, objects and expressions.

        Raises:
            IndexError: There is no such scene.
        """
        layout, statements, attempt = self._plan(index)
        if index in self._pixels:
            image, label_map = self._pixels[index]
        else:
            image, label_map = render(layout, self._draws(index, attempt, RENDER), self.config)
            if not self.cache:
                # The latest scene stays, as its expressions are mostly asked for in a row.
                self._pixels.clear()
            self._pixels[index] = (image, label_map)
        return Scene(self._scene_id(index), layout.terrain.theme, layout.objects, statements, image, label_map)

    def _scene_id(self, index: int) -> str:
        return f"{self.split}-{index:06d}"

    def locate(self, index: int) -> tuple[int, int]:
        """Which scene, and which of its expressions, sample `index` is."""
        return divmod(self._position(index), self.config.expressions)

    def __getitem__(self, index: int) -> ReferringSample:
        scene_index, number = self.locate(index)
        scene = self.scene(scene_index)
        statement = scene.statements[number]
        return ReferringSample(
            image=scene.image,
            expression=statement.text,
            mask=scene.mask(statement.referent),
            sample_id=_sample_id(scene.scene_id, number),
            image_id=scene.scene_id,
            category=scene.objects[statement.referent].category,
            kind=statement.kind,
        )

    @cached_property
    def expressions(self) -> Sequence[str]:
        """All expressions in the order of the samples; nothing is rendered for it."""
        return [statement.text for index in range(self.num_scenes) for statement in self._plan(index)[1]]

    @property
    def sample_ids(self) -> Sequence[str]:
        """Names of all samples in their order; no scene is made for it."""
        places = map(self.locate, range(len(self)))
        return [_sample_id(self._scene_id(scene), number) for scene, number in places]


def _sample_id(scene_id: str, number: int) -> str:
    return f"{scene_id}-{number}"
