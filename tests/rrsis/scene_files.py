"""Small georeferenced scenes that the tests of scenes share."""

import numpy as np

TRANSFORM = (2.0, 0.0, 500_000.0, 0.0, -2.0, 5_000_000.0)
"""Pixels of 2 m × 2 m."""


def write_scene(path, values, crs="EPSG:32633", transform=TRANSFORM, **options):
    """Writes (bands, height, width) as a GeoTIFF; `mask` (bool) becomes its internal mask."""
    import rasterio

    mask, meanings = options.pop("mask", None), options.pop("colorinterp", None)
    count, height, width = values.shape
    shape = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = None if transform is None else rasterio.Affine(*transform)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **shape, crs=crs, transform=transform, **options) as file,
    ):
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
        if meanings is not None:
            file.colorinterp = meanings
    return path


def noise(height, width, bands=3, seed=0):
    """Coarse noise, (bands, height, width) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (bands, -(-height // 8), -(-width // 8)), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
