"""Do pixels to which a model gives probability p belong to the object in a share p of cases?

All pixels of all expressions go into one histogram over the probability, so that memory does not grow with the data.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rrsis.io import atomic_write

NUM_BINS = 20
"""Bins of equal width over [0, 1]. An even number: ½, where a pixel becomes part of the mask, is then an edge."""


class Reliability:
    """Histogram of pixel probabilities with, for each bin, how many of its pixels are true.

    Masks count at their own size, every pixel alike: large images and the background, most of every image, weigh most.

    Attributes:
        pixels: (NUM_BINS,) int64, pixels by probability; p = 1 falls in the last bin.
        true_pixels: (NUM_BINS,) int64, those of them that belong to the object.
        probability_sums: (NUM_BINS,) float64, sums of their probabilities.
        squared_error: Sum of (p − truth)² over all pixels.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros(NUM_BINS, dtype=np.int64)
        self.true_pixels = np.zeros(NUM_BINS, dtype=np.int64)
        self.probability_sums = np.zeros(NUM_BINS, dtype=np.float64)
        self.squared_error = 0.0

    def update(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Adds the pixels of one expression.

        Args:
            probabilities: ``(H, W)`` floating, in [0, 1].
            truth: ``(H, W)`` bool.

        Raises:
            ValueError: If the shapes differ or a value is no probability.
        """
        if probabilities.shape != truth.shape:
            raise ValueError(f"probabilities: got shape {probabilities.shape}, expected the mask's {truth.shape}")
        values = probabilities.astype(np.float64).ravel()
        if not (values.min() >= 0.0 and values.max() <= 1.0):
            raise ValueError("probabilities: got NaN or values outside [0, 1]")
        bins = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        self.pixels += np.bincount(bins, minlength=NUM_BINS)
        self.true_pixels += np.bincount(bins[truth.ravel()], minlength=NUM_BINS)
        self.probability_sums += np.bincount(bins, weights=values, minlength=NUM_BINS)
        self.squared_error += float(np.square(values - truth.ravel()).sum())

    def merge(self, other: Reliability) -> Reliability:
        """Adds what another shard collected; returns this object."""
        self.pixels += other.pixels
        self.true_pixels += other.true_pixels
        self.probability_sums += other.probability_sums
        self.squared_error += other.squared_error
        return self

    def expected_error(self) -> float:
        """ECE: the mean over all pixels of |mean probability − share of true pixels| of the pixel's bin."""
        return float(np.abs(self.probability_sums - self.true_pixels).sum() / self._total())

    def to_dict(self) -> dict[str, Any]:
        """Everything in numbers, ready for JSON.

        ``ece`` and ``brier`` (mean squared error) are over all pixels. ``predicted`` is about the pixels with p >= ½
        alone, which the background's many certain pixels do not hide: mean probability against precision (None where no
        pixel is predicted). ``bins`` leaves out empty bins.

        Raises:
            ValueError: If no pixel was added.
        """
        edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
        bins = [
            {
                "from": float(edges[k]),
                "to": float(edges[k + 1]),
                "pixels": int(self.pixels[k]),
                "mean_probability": float(self.probability_sums[k] / self.pixels[k]),
                "share_true": float(self.true_pixels[k] / self.pixels[k]),
            }
            for k in np.flatnonzero(self.pixels)
        ]
        predicted = int(self.pixels[NUM_BINS // 2 :].sum())
        return {
            "num_pixels": self._total(),
            "ece": self.expected_error(),
            "brier": self.squared_error / self._total(),
            "predicted": {
                "pixels": predicted,
                "mean_probability": float(self.probability_sums[NUM_BINS // 2 :].sum() / predicted),
                "share_true": float(self.true_pixels[NUM_BINS // 2 :].sum() / predicted),
            }
            if predicted
            else None,
            "bins": bins,
        }

    def save_diagram(self, path: str | os.PathLike[str], title: str | None = None) -> None:
        """Draws share of true pixels against probability, and below it how many pixels each bin holds.

        Args:
            path: Where to write; the suffix chooses the format (.png).
            title: A line above the picture.

        Raises:
            ValueError: If no pixel was added.
        """
        content = self.to_dict()
        figure = Figure(figsize=(4.6, 5.4), dpi=110, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        middles = [(entry["from"] + entry["to"]) / 2 for entry in content["bins"]]
        shares = [entry["share_true"] for entry in content["bins"]]
        upper.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1.0, label="calibrated")
        upper.bar(middles, shares, width=1 / NUM_BINS, color="#56B4E9", edgecolor="white", linewidth=0.5)
        means = [entry["mean_probability"] for entry in content["bins"]]
        upper.plot(means, shares, color="#0072B2", marker="o", markersize=3, linewidth=1.2, label="pixels")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of true pixels")
        upper.set_title(title or "reliability of pixel probabilities", fontsize=10)
        figures = f"ECE {content['ece']:.4f}, Brier {content['brier']:.4f}"
        # The lower right corner is free unless pixels are far from as likely as they were said to be.
        upper.text(0.97, 0.04, figures, transform=upper.transAxes, ha="right", bbox={"color": "white", "alpha": 0.8})
        upper.legend(fontsize=8, frameon=False, loc="upper left")
        # Background outnumbers everything else by orders of magnitude.
        lower.bar(middles, [entry["pixels"] for entry in content["bins"]], width=1 / NUM_BINS, color="0.6")
        lower.set(yscale="log", xlabel="predicted probability", ylabel="pixels")
        for axes in (upper, lower):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        with atomic_write(path) as temporary:
            figure.savefig(temporary)

    def _total(self) -> int:
        total = int(self.pixels.sum())
        if total == 0:
            raise ValueError("reliability: no pixels were added, expected at least one expression")
        return total
