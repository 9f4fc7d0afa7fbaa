"""Writes SynthRRSIS in a published layout: ``python -m rrsis.data.synthetic --layout refsegrs --out DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..types import SPLITS
from ..writers import LAYOUTS, write_layout
from .config import CONFIGS, SynthConfig
from .dataset import NUM_SCENES, SynthRRSIS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rrsis.data.synthetic", description=__doc__)
    parser.add_argument("--layout", required=True, choices=list(LAYOUTS), help="published layout to write")
    parser.add_argument("--out", required=True, help="folder to write; must not exist yet or be empty")
    for split in SPLITS:
        parser.add_argument(
            f"--num_{split}", type=int, default=NUM_SCENES[split], help=f"scenes for {split} (default: %(default)s)"
        )
    parser.add_argument("--size", type=int, default=None, help="side of the images in pixels (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set (default: %(default)s)")
    parser.add_argument("--config", default="default", choices=list(CONFIGS), help="difficulty (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        changes = {} if options.size is None else {"image_size": options.size}
        config = SynthConfig.named(options.config, **changes)
        splits = {
            # Written scene by scene: keeping them all would only cost memory.
            split: SynthRRSIS(split, getattr(options, f"num_{split}"), options.seed, config, cache=False)
            for split in SPLITS
        }
        out = write_layout(splits, options.layout, options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in splits.items())
    print(f"wrote {out} in the layout of {options.layout}: {counts} expressions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
