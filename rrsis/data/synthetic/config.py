"""How hard SynthRRSIS is: one dataclass, with named settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

KINDS: tuple[str, ...] = ("class", "colour", "size", "place", "relation", "combined")
"""The kinds of expressions."""


@dataclass(frozen=True)
class SynthConfig:
    """Difficulty of SynthRRSIS. Lengths are in units of 1/128 of the image side, whatever the image size.

    Attributes:
        image_size: Side of the square image in pixels.
        objects: Fewest and most objects of a scene that can be referred to.
        distractors: Fewest and most further objects of the class that the scene is built around.
        same_class: How many others of its own class a referred object has at the least. From 1 on no expression of
            kind "class" is possible.
        expressions: Expressions per scene.
        kinds: Share of each kind of expression, in the order of `KINDS`; where a scene has no (further) expression of
            the kind that was drawn, another kind takes its place.
        close_directions: Share of the directions that are said as "just left of", which holds of what is near alone:
            of several cars left of a bridge it can mean one that is not the leftmost, and the bridge has to be found.
        object_scale: Factor on all object lengths.
        min_side: No object's shorter side is shorter than this.
        lookalike: Chance that a distractor has the colour of the first object of its class, so that colour alone does
            not tell them apart.
        clutter: Most buildings and trees of a scene, which no expression speaks of.
        texture: Strength of the ground's texture (1 = as designed).
        noise: Standard deviation of the sensor noise, in grey levels.
        blur: Standard deviation of the Gaussian blur of the whole image.
    """

    image_size: int = 128
    objects: tuple[int, int] = (3, 5)
    distractors: tuple[int, int] = (0, 2)
    same_class: int = 0
    expressions: int = 4
    kinds: tuple[float, ...] = (0.26, 0.26, 0.17, 0.12, 0.10, 0.09)
    close_directions: float = 0.0
    object_scale: float = 1.25
    min_side: float = 5.0
    lookalike: float = 0.2
    clutter: int = 8
    texture: float = 1.0
    noise: float = 3.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        for name in ("objects", "distractors"):
            low, high = getattr(self, name)
            least = 1 if name == "objects" else 0
            if not least <= low <= high:
                raise ValueError(f"{name}: got ({low}, {high}), due is {least} <= fewest <= most")
        if self.image_size < 32:
            raise ValueError(f"image_size: got {self.image_size}, due is at least 32")
        if self.objects[1] > 16:
            raise ValueError(f"objects: got up to {self.objects[1]}, at most 16 find room in a scene")
        if self.expressions < 1:
            raise ValueError(f"expressions: got {self.expressions}, due is at least 1")
        if len(self.kinds) != len(KINDS) or min(self.kinds) < 0 or sum(self.kinds) <= 0:
            raise ValueError(f"kinds: got {self.kinds}, due are {len(KINDS)} shares ({', '.join(KINDS)}), not all zero")
        for name in ("object_scale", "min_side"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, due is more than 0")
        for name in ("same_class", "clutter", "texture", "noise", "blur"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, due is 0 or more")
        for name in ("close_directions", "lookalike"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)}, due is a probability")

    @staticmethod
    def named(name: str, **changes: object) -> SynthConfig:
        """The setting of that name, with single fields changed.

        Raises:
            ValueError: There is no setting of that name.
        """
        if name not in CONFIGS:
            raise ValueError(f"config: got {name!r}, due is one of {', '.join(CONFIGS)}")
        return replace(CONFIGS[name], **changes)  # type: ignore[arg-type]


CONFIGS: dict[str, SynthConfig] = {
    "default": SynthConfig(),
    "easy": SynthConfig(objects=(2, 5), distractors=(0, 1), kinds=(0.4, 0.25, 0.15, 0.2, 0.0, 0.0), lookalike=0.0),
    # Where the parts of a model can differ: every referred object has two look-alikes of its own class or more, and
    # at least half of the expressions need another object or two properties at once.
    "hard": SynthConfig(
        objects=(4, 9),
        distractors=(2, 4),
        same_class=2,
        kinds=(0.0, 0.12, 0.12, 0.16, 0.34, 0.26),
        object_scale=0.85,
        min_side=4.0,
        lookalike=0.6,
        noise=6.0,
        blur=0.5,
    ),
    # Where another object has to be found: three of five expressions are relations, and to take "left of" for
    # "leftmost" is no better than to guess.
    "relations": SynthConfig(
        objects=(6, 9),
        distractors=(2, 3),
        same_class=1,
        expressions=2,
        kinds=(0.0, 0.05, 0.02, 0.03, 0.90, 0.05),
        close_directions=1.0,
        object_scale=1.0,
        lookalike=0.6,
    ),
}
