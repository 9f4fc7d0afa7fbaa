"""Writes SynthRRSIS in a published layout: ``python -m rrsis.data.synthetic --layout refsegrs --out DIR``.

``python -m rrsis.data.synthetic --preview grid.png`` makes a picture of it instead, and
``python -m rrsis.data.synthetic --geotiff scene.tif --size 1024`` a georeferenced scene to try `rrsis.predict` on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ...io import atomic_write
from ..types import SPLITS
from ..writers import LAYOUTS, write_layout
from .config import CONFIGS, SynthConfig
from .dataset import NUM_SCENES, SynthRRSIS
from .preview import preview

GEOTIFF_SIZE = 1024
"""Side of a GeoTIFF in pixels where nothing else is asked for."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rrsis.data.synthetic", description="Writes SynthRRSIS in a published layout."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--layout", choices=list(LAYOUTS), help="published layout to write")
    what.add_argument("--preview", metavar="FILE", help="make a picture of 4 x 4 training scenes")
    what.add_argument("--geotiff", metavar="FILE", help="make a georeferenced scene of test scenes side by side")
    parser.add_argument("--out", help="folder to write the layout to; must not exist yet or be empty")
    for split in SPLITS:
        parser.add_argument(
            f"--num_{split}", type=int, default=NUM_SCENES[split], help=f"scenes for {split} (default: %(default)s)"
        )
    parser.add_argument(
        "--size",
        type=int,
        default=None,
        help=f"side of the images in pixels (default: the config's); of the whole GeoTIFF (default: {GEOTIFF_SIZE})",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set (default: %(default)s)")
    parser.add_argument("--config", default="default", choices=list(CONFIGS), help="difficulty (default: %(default)s)")
    return parser


def _preview(options: argparse.Namespace, config: SynthConfig) -> str:
    grid = preview(SynthRRSIS("train", 16, options.seed, config))
    with atomic_write(options.preview) as path:
        grid.save(path)
    return f"wrote {options.preview}"


def _geotiff(options: argparse.Namespace) -> str:
    try:
        from .geotiff import CRS, PIXEL_METRES, write_geotiff
    except ImportError as error:
        raise ValueError(f"geotiff: needs packages that are not here ({error}): pip install 'rrsis[geo]'") from error
    size = GEOTIFF_SIZE if options.size is None else options.size
    objects = write_geotiff(options.geotiff, size, options.seed, SynthConfig.named(options.config))
    counts = ", ".join(f"{name} {count}" for name, count in objects.most_common())
    return f"wrote {options.geotiff}: {size} × {size} pixels of {PIXEL_METRES:g} m, {CRS}\nit shows {counts}"


def _make(options: argparse.Namespace) -> str:
    if options.geotiff:
        return _geotiff(options)
    changes = {} if options.size is None else {"image_size": options.size}
    config = SynthConfig.named(options.config, **changes)
    return _preview(options, config) if options.preview else _layout(options, config)


def _layout(options: argparse.Namespace, config: SynthConfig) -> str:
    if options.out is None:
        raise ValueError("out: --layout needs --out, the folder to write")
    splits = {
        # Written scene by scene: keeping them all would only cost memory.
        split: SynthRRSIS(split, getattr(options, f"num_{split}"), options.seed, config, cache=False)
        for split in SPLITS
    }
    out = write_layout(splits, options.layout, options.out)
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in splits.items())
    return f"wrote {out} in the layout of {options.layout}: {counts} expressions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        print(_make(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
