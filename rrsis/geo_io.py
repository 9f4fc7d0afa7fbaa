"""Scenes in georeferenced files: windows of them as 8-bit RGB, and their masks back into files on the same grid.

What the model gets to see, of whatever a file holds:

- **Bands.** Those asked for; else those that the file calls red, green and blue; else the first three; a file of one or
  two bands gives its first one, three times. A palette is resolved. Bands that are alpha are never taken for colours.
- **Depth.** 8-bit values stay. Others are stretched linearly, each band from its 2nd to its 98th percentile (sensors
  rarely fill 16 bits); the percentiles come from a decimated reading of the whole scene, and all windows share them.
- **No-data.** A pixel counts unless all chosen bands call it no-data (no-data value, mask or alpha), or one of them is
  not a number. The model sees no-data as black; masks and polygons leave it out.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rrsis.tiling import Box

PERCENTILES = (2.0, 98.0)
"""Percentiles between which a band of other than 8 bits is stretched."""

NO_DATA = 255
"""Value of no-data in a mask; the object is 1, the rest 0."""

TILE = 512
"""Side of the tiles of the files that are written, in pixels."""

CACHE_BYTES = 64 << 20
"""What GDAL may keep of files in memory; its own default is a share of the machine's memory."""

LARGEST_BLOCK = 256 << 20
"""Bytes of the largest block of a file that is accepted: GDAL reads whole blocks, however small the window."""

_OVERVIEW_SIDE = 1024


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """GDAL's settings while scenes are read and written."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO"), warnings.catch_warnings():
        # Said once, in our words, by whoever writes the outputs.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


class Scene:
    """An open scene, read window by window as 8-bit RGB by the rules in this module's text.

    Args:
        path: A raster file that GDAL reads.
        bands: One or three band numbers, counted from 1; None chooses.
        percentiles: Between which percentiles bands of other than 8 bits are stretched.

    Attributes:
        path: The file.
        bands: The chosen band numbers.
        limits: ``(bands, 2)`` float64, the values that become 0 and 255, or None for 8-bit bands.
        dataset: The open rasterio data set.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a readable raster, or has not the bands asked for.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bands: Sequence[int] | None = None,
        percentiles: tuple[float, float] = PERCENTILES,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"scene: no file {str(path)!r}")
        try:
            with warnings.catch_warnings():
                # Said once, in our words, by whoever writes the outputs.
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self.dataset = rasterio.open(self.path)
        except RasterioError as error:
            raise ValueError(f"scene: {str(path)!r} is not a raster that GDAL reads ({error})") from error
        try:
            self._palette = self._read_palette()
            self.bands = self._choose(bands)
            self._check()
            deep = any(self.dataset.dtypes[band - 1] != "uint8" for band in self.bands)
            self.limits = self._find_limits(percentiles) if deep else None
        except BaseException:
            self.dataset.close()
            raise

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    @property
    def box(self) -> Box:
        """The whole scene."""
        return Box(0, 0, self.dataset.height, self.dataset.width)

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Reads a window.

        Args:
            box: Which; what lies beyond the scene is no-data.

        Returns:
            ``(height, width, 3)`` uint8, black where there is no data, and ``(height, width)`` bool, True where
            there is.

        Raises:
            ValueError: If the file breaks off or is damaged there.
        """
        image = np.zeros((box.height, box.width, 3), dtype=np.uint8)
        valid = np.zeros((box.height, box.width), dtype=bool)
        inside = box.shared_with(self.box)
        if inside is not None:
            place = inside.within(box)
            image[place], valid[place] = self._read(_window(inside))
        return image, valid

    def read_valid(self, box: Box) -> np.ndarray:
        """Which pixels of a window inside the scene hold data: ``(height, width)`` bool."""
        return self._read_raw(_window(box))[2]

    def thumbnail(self, side: int) -> np.ndarray:
        """The whole scene as ``(h, w, 3)`` uint8, its longer side at most `side`; decimated as it is read."""
        return self._read(None, self.decimated_size(side))[0]

    def decimated_size(self, side: int) -> tuple[int, int]:
        """Height and width with the scene's proportions, the longer one at most `side`."""
        factor = min(1.0, side / max(self.box.height, self.box.width))
        return max(1, round(self.box.height * factor)), max(1, round(self.box.width * factor))

    def _read(self, window: Window | None, size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        values, _, valid = self._read_raw(window, size)
        if self._palette is not None:
            image = self._palette[values[0]]
        elif self.limits is None:
            image = values.transpose(1, 2, 0)
        else:
            image = _stretch(values, self.limits).transpose(1, 2, 0)
        image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        return np.where(valid[..., None], image, np.uint8(0)), valid

    def _read_raw(
        self, window: Window | None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (bands, h, w), where each band has data (bands, h, w) bool, and where the scene has (h, w) bool."""
        shape = None if size is None else (len(self.bands), *size)
        try:
            values = self.dataset.read(self.bands, window=window, out_shape=shape)
            masks = self.dataset.read_masks(self.bands, window=window, out_shape=shape)
        except RasterioError as error:
            raise ValueError(
                f"scene: {str(self.path)!r} cannot be read at {window or 'any place'} ({error})"
            ) from error
        known = masks > 0
        valid = known.any(axis=0)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        return values, known & valid, valid

    def _read_palette(self) -> np.ndarray | None:
        if self.dataset.colorinterp[0] is not ColorInterp.palette or self.dataset.dtypes[0] != "uint8":
            return None
        palette = np.zeros((256, 3), dtype=np.uint8)
        for value, color in self.dataset.colormap(1).items():
            palette[value] = color[:3]
        return palette

    def _choose(self, bands: Sequence[int] | None) -> list[int]:
        count, meanings = self.dataset.count, list(self.dataset.colorinterp)
        if bands is not None:
            if len(bands) not in (1, 3) or not all(1 <= band <= count for band in bands):
                raise ValueError(
                    f"bands: got {list(bands)}, expected one or three numbers from 1 to {count} ({self.path})"
                )
            return list(bands)
        if self._palette is not None:
            return [1]
        named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        if all(meaning in meanings for meaning in named):
            return [meanings.index(meaning) + 1 for meaning in named]
        colors = [band for band in range(1, count + 1) if meanings[band - 1] is not ColorInterp.alpha]
        if not colors:
            raise ValueError(f"scene: {str(self.path)!r} has no band beside alpha, expected at least one")
        return colors[:3] if len(colors) >= 3 else colors[:1]

    def _check(self) -> None:
        for band in self.bands:
            dtype = np.dtype(self.dataset.dtypes[band - 1])
            if dtype.kind not in "uif":
                raise ValueError(f"scene: band {band} of {str(self.path)!r} is {dtype}, expected real numbers")
            rows, columns = self.dataset.block_shapes[band - 1]
            size = rows * columns * dtype.itemsize
            if size > LARGEST_BLOCK:
                raise ValueError(
                    f"scene: {str(self.path)!r} is stored in blocks of {size >> 20} MiB, expected at most"
                    f" {LARGEST_BLOCK >> 20}; rewrite it in tiles: rio convert IN OUT --co TILED=YES"
                )

    def _find_limits(self, percentiles: tuple[float, float]) -> np.ndarray:
        values, known, _ = self._read_raw(None, self.decimated_size(_OVERVIEW_SIDE))
        limits = []
        for band, has_data in zip(values, known, strict=True):
            data = band[has_data].astype(np.float64)
            if data.size == 0:
                limits.append((0.0, 0.0))
                continue
            low, high = np.percentile(data, percentiles)
            # A band that is nearly constant has its contrast outside of the percentiles.
            limits.append((low, high) if high > low else (data.min(), data.max()))
        return np.asarray(limits)


def raster_profile(scene: Scene, dtype: str, nodata: float | None = None) -> dict[str, Any]:
    """Options for rasterio of a one-band GeoTIFF on the scene's grid, tiled and compressed.

    Args:
        scene: Whose size, CRS and transform it gets.
        dtype: numpy's name of the values' type.
        nodata: Value that means no-data.
    """
    return {
        "driver": "GTiff",
        "height": scene.box.height,
        "width": scene.box.width,
        "count": 1,
        "dtype": dtype,
        "nodata": nodata,
        "crs": scene.dataset.crs,
        "transform": scene.dataset.transform,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "bigtiff": "if_safer",  # beyond 4 GB a file needs the larger format, and GDAL cannot know beforehand
    }


def tiles(outer: Box, side: int = TILE) -> Iterator[Box]:
    """Cuts a rectangle into squares of `side` (less at its lower and right edges), row by row."""
    for top in range(outer.top, outer.bottom, side):
        for left in range(outer.left, outer.right, side):
            yield Box(top, left, min(side, outer.bottom - top), min(side, outer.right - left))


def read_box(dataset: Any, box: Box) -> np.ndarray:
    """A rectangle of the first band of an open data set: ``(height, width)``."""
    return dataset.read(1, window=_window(box))


def write_box(dataset: Any, box: Box, values: np.ndarray) -> None:
    """Writes ``(height, width)`` to a rectangle of the first band of an open data set."""
    dataset.write(values, 1, window=_window(box))


def _window(box: Box) -> Window:
    return Window(box.left, box.top, box.width, box.height)


def _stretch(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Values (bands, h, w) to uint8 between each band's limits; a band without contrast becomes mid-grey."""
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    with np.errstate(invalid="ignore"):
        scaled = (values - low) / np.where(high > low, high - low, 1.0)
        grey = np.rint(np.nan_to_num(scaled, nan=0.0).clip(0.0, 1.0) * 255).astype(np.uint8)
    return np.where(high > low, grey, np.uint8(127))
