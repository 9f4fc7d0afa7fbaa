"""Polygons of a mask in pixel coordinates, as GeoJSON."""

from __future__ import annotations

from typing import Any

import contourpy
import numpy as np

COORDINATES = (
    "pixels of the image: x to the right and y downwards from its upper left corner, a pixel's centre at +0.5; "
    "not georeferenced, so not the longitudes and latitudes that RFC 7946 expects"
)
"""Stands in every file."""


def feature_collection(probability: np.ndarray, threshold: float, expression: str) -> dict[str, Any]:
    """The object's outline, where the bilinear probability crosses the threshold, as a GeoJSON FeatureCollection.

    But for rounding to 1/1000 pixel, a pixel's centre lies inside exactly when the pixel belongs to the mask.

    Args:
        probability: (H, W) float.
        threshold: between 0 and 1.
        expression: goes into every feature's properties.

    Returns:
        One feature a part with its holes, largest first; its properties are the expression and the area in pixels.
    """
    features = [_feature(polygon, expression) for polygon in _polygons(probability, threshold)]
    features.sort(key=lambda feature: -feature["properties"]["area_pixels"])
    height, width = probability.shape
    return {
        "type": "FeatureCollection",
        "coordinates": COORDINATES,
        "image_size": {"width": width, "height": height},
        "threshold": threshold,
        "features": features,
    }


def _polygons(probability: np.ndarray, threshold: float) -> list[list[np.ndarray]]:
    """Rings (V, 2) of each part: its outline, then its holes."""
    height, width = probability.shape
    # The outermost values reach to the image's edge, where the filled contours then close.
    x, y = (np.concatenate([[0], np.arange(count) + 0.5, [count]]) for count in (width, height))
    generator = contourpy.contour_generator(
        x, y, np.pad(probability.astype(np.float64), 1, mode="edge"), fill_type=contourpy.FillType.OuterOffset
    )
    return [
        [points[start:stop] for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]
        for points, offsets in zip(*generator.filled(threshold, np.inf), strict=True)
    ]


def _feature(rings: list[np.ndarray], expression: str) -> dict[str, Any]:
    area = abs(_signed_area(rings[0])) - sum(abs(_signed_area(hole)) for hole in rings[1:])
    return {
        "type": "Feature",
        "properties": {"expression": expression, "area_pixels": round(area, 2)},
        "geometry": {"type": "Polygon", "coordinates": [_wind(ring, index == 0) for index, ring in enumerate(rings)]},
    }


def _signed_area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _wind(ring: np.ndarray, outer: bool) -> list[list[float]]:
    """Outlines one way and holes the other, as RFC 7946 has it in its own, upward y."""
    ring = ring if (_signed_area(ring) > 0) == outer else ring[::-1]
    return [[round(float(x), 3), round(float(y), 3)] for x, y in ring]
