"""How often SynthRRSIS' relations can be answered without their other object: ``python scripts/relation_shortcuts.py``.

"The car left of the bridge" is nearly always the leftmost car. A model that has learned this gains nothing from
finding the bridge.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from tqdm.auto import tqdm

from rrsis.data import build_dataset
from rrsis.data.synthetic.catalogue import UNITS
from rrsis.data.synthetic.config import CONFIGS
from rrsis.data.synthetic.scene import SceneObject

OUTERMOST: dict[str, Callable[[SceneObject], float]] = {
    "left of": lambda item: item.center[0],
    "right of": lambda item: -item.center[0],
    "above": lambda item: item.center[1],
    "below": lambda item: -item.center[1],
}


def _from_middle(item: SceneObject) -> float:
    return math.dist(item.center, (UNITS / 2, UNITS / 2))


def count(difficulty: str, scenes: int) -> dict[tuple[str, str], float]:
    """Counts the test split's relations, and how many of them each rule without an anchor answers.

    The rules choose among the objects of the referred one's class: the outermost for a direction, the one nearest to
    the image's middle for a nearness, and either at random ("chance").

    Args:
        difficulty: of SynthRRSIS.
        scenes: how many of the test split's.

    Returns:
        Counts by ("direction" or "nearness", "all", "shortcut" or "chance").
    """
    dataset = build_dataset("synthetic", "test", num_scenes=scenes, config=difficulty)
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for index in tqdm(range(len(dataset)), desc=difficulty, leave=False):
        number, which = dataset.locate(index)
        scene = dataset.scene(number)
        statement = scene.statements[which]
        if statement.kind != "relation":
            continue
        rule = next((rule for link, rule in OUTERMOST.items() if link in statement.text), None)
        alike = [item for item in scene.objects if item.category == scene.objects[statement.referent].category]
        chosen = min(alike, key=rule or _from_middle)
        group = "direction" if rule else "nearness"
        counts[group, "all"] += 1
        counts[group, "shortcut"] += chosen is scene.objects[statement.referent]
        counts[group, "chance"] += 1 / len(alike)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints a line for each difficulty and kind of relation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=1000, help="scenes of the test split (default: 1000)")
    arguments = parser.parse_args(argv)
    for difficulty in CONFIGS:
        counts = count(difficulty, arguments.scenes)
        for group in ("direction", "nearness"):
            if total := counts[group, "all"]:
                rates = ", ".join(f"{name} {100 * counts[group, name] / total:.1f}%" for name in ("shortcut", "chance"))
                print(f"{difficulty}: {total:.0f} of {group}: {rates}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
