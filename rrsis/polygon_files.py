"""Files of a mask's objects: GeoJSON or GeoPackage, chosen by the file's ending.

Both have the same fields in the same order: expression, score, area_m2, area_px. GeoJSON has longitude and latitude on
WGS84 (RFC 7946), GeoPackage the raster's own CRS. Either is written piece by piece, and is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from shapely.geometry import mapping

from rrsis.geo_io import read_box
from rrsis.io import atomic_write
from rrsis.polygons import PROBABILITY_STEPS, Ground, MaskObject, Placed, find_objects
from rrsis.tiling import Box

SUFFIXES = (".geojson", ".gpkg")
"""Endings of file names, each a format."""

LAYER = "objects"
"""The layer of a GeoPackage."""

PIXEL_COORDINATES = (
    "pixels of the image: x to the right and y downwards from its upper left corner, a pixel's centre at +0.5; "
    "not georeferenced, so not the longitudes and latitudes that RFC 7946 expects"
)
"""Stands in every file whose image has no place on the Earth."""

_BATCH = 4096


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


def write_polygons(
    path: str | os.PathLike[str],
    mask_path: str | os.PathLike[str],
    probability_path: str | os.PathLike[str],
    expression: str,
    min_pixels: int = 1,
) -> Totals:
    """Writes the objects of a mask's file, one feature for each group of pixels that share edges.

    Args:
        path: Where to write; ends in one of `SUFFIXES`.
        mask_path: One band; 1 is the object.
        probability_path: The same grid, uint16, in parts of `PROBABILITY_STEPS`.
        expression: Goes into every feature.
        min_pixels: Smaller objects are left out.

    Returns:
        Figures of all features together.

    Raises:
        ValueError: If the path has another ending.
    """
    suffix = check_suffix(path)
    with rasterio.open(mask_path) as mask, rasterio.open(probability_path) as probability:
        ground = Ground(mask.crs, mask.transform)
        tally = _Tally(ground)
        found = find_objects(rasterio.band(mask, 1), functools.partial(read_box, probability), min_pixels)
        with atomic_write(path) as temporary:
            if suffix == ".gpkg":
                _write_geopackage(temporary, tally.place(found), expression, mask.crs)
            else:
                _write_geojson(temporary, tally.place(found), expression)
    return tally.totals()


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The ending of a file of polygons, in small letters.

    Raises:
        ValueError: If it is none of `SUFFIXES`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"polygons: got {str(path)!r}, expected a name that ends in {' or '.join(SUFFIXES)}")
    return suffix


def pixel_collection(probability: np.ndarray, threshold: float, expression: str) -> dict[str, Any]:
    """The objects of one image without a place on the Earth, as a GeoJSON FeatureCollection in pixel coordinates.

    Args:
        probability: ``(height, width)`` float from 0 to 1.
        threshold: A pixel belongs to the mask when its probability is above this.
        expression: Goes into every feature.

    Returns:
        As `write_polygons` writes it without a CRS, with the image's size and a note on the coordinates.
    """
    parts = np.rint(probability * PROBABILITY_STEPS).astype(np.uint16)
    whole = Box(0, 0, *probability.shape)
    found = find_objects((probability > threshold).astype(np.uint8), lambda box: parts[box.within(whole)])
    placed = _Tally(Ground(None, Affine.identity())).place(found)
    return {
        "type": "FeatureCollection",
        "coordinates": PIXEL_COORDINATES,
        "image_size": {"width": whole.width, "height": whole.height},
        "threshold": threshold,
        "features": list(_features(placed, expression)),
    }


class _Tally:
    """Places objects on the ground and adds them up as they pass by."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.objects = self.pixels = 0
        self.area = self.weighted = 0.0

    def place(self, found: Iterable[MaskObject]) -> Iterator[tuple[MaskObject, Placed]]:
        for item in found:
            placed = self.ground.place(item.polygon)
            self.objects, self.pixels = self.objects + 1, self.pixels + item.pixels
            self.area += placed.square_metres or 0.0
            self.weighted += item.score * item.pixels
            yield item, placed

    def totals(self) -> Totals:
        score = self.weighted / self.pixels if self.pixels else 0.0
        return Totals(self.objects, self.pixels, self.area if self.ground.has_areas else None, score)


def _fields(found: MaskObject, placed: Placed, expression: str) -> dict[str, Any]:
    return {
        "expression": expression,
        "score": found.score,
        "area_m2": placed.square_metres,
        "area_px": found.pixels,
    }


def _features(objects: Iterable[tuple[MaskObject, Placed]], expression: str) -> Iterator[dict[str, Any]]:
    for number, (found, placed) in enumerate(objects, 1):
        fields = _fields(found, placed, expression)
        yield {"type": "Feature", "id": number, "properties": fields, "geometry": mapping(placed.wgs84)}


def _write_geojson(path: Path, objects: Iterable[tuple[MaskObject, Placed]], expression: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for feature in _features(objects, expression):
            separator = "," if feature["id"] > 1 else ""
            stream.write(f"{separator}\n{json.dumps(feature, ensure_ascii=False)}")
        stream.write("\n]}\n")


def _write_geopackage(path: Path, objects: Iterator[tuple[MaskObject, Placed]], expression: str, crs: Any) -> None:
    with _fixed_date(), warnings.catch_warnings():
        # Said once, in our words, by whoever writes the outputs.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        wkt, append = None if crs is None else crs.to_wkt(), False
        while (batch := list(islice(objects, _BATCH))) or not append:  # without an object there is still a layer
            rows = [_fields(found, placed, expression) for found, placed in batch]
            columns = {
                "expression": np.array([row["expression"] for row in rows], dtype=object),
                "score": np.array([row["score"] for row in rows], dtype=np.float64),
                "area_m2": np.array([row["area_m2"] for row in rows], dtype=np.float64),  # None → NaN → NULL
                "area_px": np.array([row["area_px"] for row in rows], dtype=np.int64),
            }
            pyogrio.raw.write(
                path,
                geometry=shapely.to_wkb(np.array([placed.own for _, placed in batch], dtype=object)),
                field_data=list(columns.values()),
                fields=list(columns),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=wkt,
                append=append,
            )
            append = True


@contextlib.contextmanager
def _fixed_date() -> Iterator[None]:
    """Keeps the time of writing out of a GeoPackage: the same input gives the same bytes."""
    name = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: "1970-01-01T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})
