"""Objects of a mask: groups of pixels that share edges, as polygons with their size, score and place on the ground.

Scenes (`rrsis.scenes`) and the page (`rrsis.app`) trace their masks here, by one rule: outlines run along the pixels'
edges, and pixels that touch at a corner alone are different objects.

Areas are geodesic, on the WGS84 ellipsoid: right for a CRS in metres, feet or degrees alike, and free of what a
projection does to areas. A raster without a CRS keeps its own coordinates (pixels, where it has no transform either),
and its areas are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.features import geometry_mask, shapes
from shapely import Polygon, affinity
from shapely.geometry import shape
from shapely.geometry.polygon import orient

from rrsis.geo_io import tiles
from rrsis.tiling import Box

PROBABILITY_STEPS = 65535
"""A stored probability is a whole number of these parts."""

_CHUNK = 2048


@dataclass(frozen=True)
class MaskObject:
    """One object of a mask.

    Attributes:
        polygon: Its outline and holes in (column, row); a pixel reaches from its index to the next.
        pixels: How many it has.
        score: Their mean probability.
    """

    polygon: Polygon
    pixels: int
    score: float


@dataclass(frozen=True)
class Placed:
    """Where an object lies; outer rings are counter-clockwise.

    Attributes:
        own: In the raster's own coordinates.
        wgs84: In longitude and latitude; `own` without a CRS.
        square_metres: Its area; None without a CRS.
    """

    own: Polygon
    wgs84: Polygon
    square_metres: float | None


class Ground:
    """From a raster's pixels to the ground.

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

    def place(self, polygon: Polygon) -> Placed:
        """Moves a polygon in (column, row) to the ground."""
        own = orient(affinity.affine_transform(polygon, self.matrix))
        if self.to_wgs84 is None:
            return Placed(own, own, None)
        wgs84 = orient(shapely.transform(own, self.to_wgs84.transform, interleaved=False))
        return Placed(own, wgs84, abs(self.geod.geometry_area_perimeter(wgs84)[0]))


def find_objects(mask: Any, read_probability: Callable[[Box], np.ndarray], min_pixels: int = 1) -> Iterator[MaskObject]:
    """Finds the objects of a mask, in the order in which they end from top to bottom.

    Memory grows with the outlines, not with the mask: a mask in a file is traced line by line, scores are read piece by
    piece.

    Args:
        mask: ``(height, width)`` uint8, or a band of an open file (`rasterio.band`); 1 is the object.
        read_probability: Gives ``(height, width)`` uint16 of a box, in parts of `PROBABILITY_STEPS`.
        min_pixels: Smaller objects are left out.
    """
    for polygon in _outlines(mask):
        pixels, score = _measure(polygon, read_probability)
        if pixels >= min_pixels:
            yield MaskObject(polygon, pixels, score)


def _outlines(mask: Any) -> Iterator[Polygon]:
    """Polygons of the object's pixels, in (column, row)."""
    grid = Affine.identity() if isinstance(mask, np.ndarray) else mask.ds.transform
    to_pixels = (~grid).to_shapely()
    # As its own mask the band leaves out its zeros, which would be the largest polygon of all.
    for geometry, value in shapes(mask, mask=mask, connectivity=4):
        if value == 1:
            # GDAL traces an open file in the file's coordinates; rounding undoes what that did to whole numbers.
            yield shapely.transform(affinity.affine_transform(shape(geometry), to_pixels), np.rint)


def _measure(polygon: Polygon, read_probability: Callable[[Box], np.ndarray]) -> tuple[int, float]:
    """How many pixels a polygon in (column, row) holds, and their mean probability."""
    left, top, right, bottom = (int(bound) for bound in polygon.bounds)
    count = total = 0
    for piece in tiles(Box(top, left, bottom - top, right - left), _CHUNK):
        offset = Affine.translation(piece.left, piece.top)
        inside = geometry_mask([polygon], (piece.height, piece.width), offset, invert=True)
        count += int(inside.sum())
        total += int(read_probability(piece)[inside].sum(dtype=np.uint64))
    return count, total / (count * PROBABILITY_STEPS) if count else 0.0


def _transformer(crs: Any) -> Transformer | None:
    """From a CRS to longitude and latitude; None where there is none, or it has no place on the Earth."""
    if crs is None:
        return None
    try:
        return Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    except ProjError:
        return None
