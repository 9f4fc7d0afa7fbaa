"""A GeoTIFF to try scenes of any size on: SynthRRSIS scenes side by side, with a made-up place on the Earth."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import rasterio
from rasterio.windows import Window
from tqdm.auto import tqdm

from ...io import atomic_write
from .catalogue import UNITS
from .config import SynthConfig
from .dataset import SynthRRSIS

CRS = "EPSG:32631"
"""UTM zone 31 north."""

ORIGIN = (500_000.0, 6_250_000.0)
"""Upper left corner in `CRS`: in the North Sea, where nobody takes these for real places."""

PIXEL_METRES = 1.0


def write_geotiff(
    path: str | os.PathLike[str], size: int, seed: int = 0, config: SynthConfig | None = None, progress: bool = True
) -> Counter[str]:
    """Writes held-out scenes side by side, row by row; those at the right and lower edge are cut where they do not fit.

    Args:
        path: The file: three bands of 8 bits, pixels of `PIXEL_METRES`.
        size: Side of the whole picture in pixels.
        seed: Seed of the data set.
        config: Difficulty, and size of each of the scenes.
        progress: Whether to show a progress bar.

    Returns:
        How many objects of each category have their middle in the picture.

    Raises:
        ValueError: If the picture is smaller than one scene.
    """
    config = config or SynthConfig()
    side = config.image_size
    if size < side:
        raise ValueError(f"size: got {size}, due is at least {side}, the side of one scene")
    count = -(-size // side)
    # The split that no training has seen; scenes are written as they come, so that none is kept.
    scenes = SynthRRSIS("test", count**2, seed, config, cache=False)
    objects: Counter[str] = Counter()
    with (
        atomic_write(path) as temporary,
        rasterio.open(temporary, "w", **_profile(size)) as file,
        tqdm(total=count**2, unit="scene", disable=not progress) as bar,
    ):
        for row in range(count):
            drawn = [scenes.scene(row * count + column) for column in range(count)]
            strip = np.concatenate([scene.image for scene in drawn], axis=1)[: size - row * side, :size]
            file.write(strip.transpose(2, 0, 1), window=Window(0, row * side, size, strip.shape[0]))
            for column, scene in enumerate(drawn):
                room = (size - column * side, size - row * side)  # in pixels
                middles = [(thing, np.multiply(thing.center, side / UNITS)) for thing in scene.objects]
                objects.update(thing.category for thing, middle in middles if (middle < room).all())
            bar.update(count)
    return objects


def _profile(size: int) -> dict[str, object]:
    return {
        "driver": "GTiff",
        "height": size,
        "width": size,
        "count": 3,
        "dtype": "uint8",
        "photometric": "rgb",
        "crs": CRS,
        "transform": rasterio.Affine(PIXEL_METRES, 0, ORIGIN[0], 0, -PIXEL_METRES, ORIGIN[1]),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
    }
