"""Polygons of a mask with their area on the ground and their mean score, as GeoJSON.

Areas are geodesic, on the WGS84 ellipsoid: right for a CRS in metres, feet or degrees alike, and free of what a
projection does to areas. Coordinates are longitude and latitude on WGS84, as GeoJSON (RFC 7946) wants them. A scene
without a CRS keeps its own coordinates (pixels, where it has no transform either), and its areas are null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.features import geometry_mask, shapes
from shapely import Polygon, affinity
from shapely.geometry import mapping, shape
from shapely.geometry.polygon import orient

from rrsis.geo_io import read_box, tiles
from rrsis.io import atomic_write
from rrsis.tiling import Box

PROBABILITY_STEPS = 65535
"""A stored probability is a whole number of these parts."""

_CHUNK = 2048


@dataclass(frozen=True)
class Totals:
    """All polygons of one expression together.

    Attributes:
        objects: How many.
        area_px: Their pixels.
        area_m2: Their area on the ground; None without a CRS.
        score: Mean probability of their pixels; 0 where there is none.
    """

    objects: int
    area_px: int
    area_m2: float | None
    score: float


class Ground:
    """From a raster's pixels to WGS84.

    Args:
        crs: The raster's CRS, or None.
        grid: The raster's transform, from (column, row) to the CRS; it may rotate and shear.
    """

    def __init__(self, crs: Any, grid: Affine) -> None:
        self.matrix = grid.to_shapely()
        self.geod = Geod(ellps="WGS84")
        self.to_wgs84 = _transformer(crs)

    @property
    def has_areas(self) -> bool:
        """Whether pixels have a place on the Earth, and so an area."""
        return self.to_wgs84 is not None

    def place(self, polygon: Polygon) -> tuple[Polygon, float | None]:
        """Moves a polygon from pixels to the ground.

        Args:
            polygon: In (column, row).

        Returns:
            The polygon in longitude and latitude, outer ring counter-clockwise, and its area in m²; in the raster's own
            coordinates and None where there is no CRS.
        """
        moved = affinity.affine_transform(polygon, self.matrix)
        if self.to_wgs84 is None:
            return orient(moved), None
        moved = orient(shapely.transform(moved, self.to_wgs84.transform, interleaved=False))
        return moved, abs(self.geod.geometry_area_perimeter(moved)[0])


def write_polygons(
    path: str | os.PathLike[str],
    mask_path: str | os.PathLike[str],
    probability_path: str | os.PathLike[str],
    expression: str,
    min_pixels: int = 1,
) -> Totals:
    """Writes the objects of a mask as GeoJSON, one feature for each group of pixels that share edges.

    Memory grows with what is written, not with the scene: the mask is traced line by line, and scores are read piece by
    piece.

    Args:
        path: Where to write.
        mask_path: One band; 1 is the object.
        probability_path: The same grid, uint16, in parts of `PROBABILITY_STEPS`.
        expression: Goes into every feature.
        min_pixels: Smaller objects are left out.

    Returns:
        Figures of all features together.
    """
    objects = pixels = 0
    area = weighted = 0.0
    with (
        rasterio.open(mask_path) as mask,
        rasterio.open(probability_path) as probability,
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        ground = Ground(mask.crs, mask.transform)
        stream.write('{"type": "FeatureCollection", "features": [')
        for polygon in _outlines(mask):
            size, score = _measure(polygon, probability)
            if size < min_pixels:
                continue
            placed, square_metres = ground.place(polygon)
            properties = {"expression": expression, "score": score, "area_m2": square_metres, "area_px": size}
            feature = {"type": "Feature", "id": objects + 1, "properties": properties, "geometry": mapping(placed)}
            stream.write(("," if objects else "") + "\n" + json.dumps(feature, ensure_ascii=False))
            objects, pixels = objects + 1, pixels + size
            area, weighted = area + (square_metres or 0.0), weighted + score * size
        stream.write("\n]}\n")
    return Totals(objects, pixels, area if ground.has_areas else None, weighted / pixels if pixels else 0.0)


def _outlines(mask: Any) -> Iterator[Polygon]:
    """Polygons of the object's pixels, in (column, row)."""
    band = rasterio.band(mask, 1)
    to_pixels = ~mask.transform
    # As its own mask the band leaves out its zeros, which would be the largest polygon of all.
    for geometry, value in shapes(band, mask=band, connectivity=4):
        if value == 1:
            # GDAL traces an open file in the file's coordinates; rounding undoes what that did to whole numbers.
            polygon = affinity.affine_transform(shape(geometry), to_pixels.to_shapely())
            yield shapely.transform(polygon, np.rint)


def _measure(polygon: Polygon, probability: Any) -> tuple[int, float]:
    """How many pixels a polygon in (column, row) holds, and their mean probability."""
    left, top, right, bottom = (int(bound) for bound in polygon.bounds)
    count = total = 0
    for piece in tiles(Box(top, left, bottom - top, right - left), _CHUNK):
        offset = Affine.translation(piece.left, piece.top)
        inside = geometry_mask([polygon], (piece.height, piece.width), offset, invert=True)
        count += int(inside.sum())
        total += int(read_box(probability, piece)[inside].sum(dtype=np.uint64))
    return count, total / (count * PROBABILITY_STEPS) if count else 0.0


def _transformer(crs: Any) -> Transformer | None:
    """From a CRS to longitude and latitude; None where there is none, or it has no place on the Earth."""
    if crs is None:
        return None
    try:
        return Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    except ProjError:
        return None
