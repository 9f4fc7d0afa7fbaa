"""Pictures of what a model saw, said and got wrong.

Everything draws through Matplotlib's object interface on an Agg canvas of its own: no pyplot, no open figures, no
change of the caller's backend or rcParams. Files appear whole or not at all.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from rrsis.io import atomic_write

TRUE_POSITIVE_COLOR = (0, 158, 115)
"""Green of the Okabe-Ito palette, which readers with colour-blindness tell apart."""
FALSE_POSITIVE_COLOR = (213, 94, 0)
"""Vermilion: predicted, not true."""
FALSE_NEGATIVE_COLOR = (86, 180, 233)
"""Sky blue: true, not predicted."""
PREDICTION_COLOR = (255, 0, 200)
"""Magenta, which aerial images do not hold: a prediction without a truth to hold it against."""

_CELL_INCHES = 1.7
_COLUMN_TITLES = ("image", "truth", "prediction", "overlap")


@dataclass(frozen=True)
class SampleRow:
    """One example of a picture grid.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        expression: The referring expression.
        truth: ``(H, W)`` bool.
        prediction: ``(H, W)`` bool.
        note: A few words below the expression, such as "IoU 0.71".
    """

    image: np.ndarray
    expression: str
    truth: np.ndarray
    prediction: np.ndarray
    note: str = ""


def overlay(
    image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = PREDICTION_COLOR, alpha: float = 0.5
) -> np.ndarray:
    """Tints the pixels of a mask and draws its outline.

    Args:
        image: ``(H, W, 3)`` uint8; not changed.
        mask: ``(H, W)`` bool.
        color: Red, green, blue from 0 to 255.
        alpha: Opacity of the tint from 0 (nothing) to 1; the outline is opaque unless ``alpha`` is 0.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        TypeError: If ``image`` is not uint8 or ``mask`` is not bool.
        ValueError: If the shapes do not fit, or ``alpha`` or ``color`` is out of range.
    """
    _check_image(image)
    _check_mask("mask", mask, image)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: got {alpha!r}, expected a number from 0 to 1")
    if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
        raise ValueError(f"color: got {color!r}, expected three numbers from 0 to 255")
    result = image.copy()
    if alpha == 0.0:
        return result
    tint = np.asarray(color, dtype=np.float32)
    result[mask] = np.rint(image[mask] * (1.0 - alpha) + tint * alpha).astype(np.uint8)
    result[_outline(mask)] = tint.astype(np.uint8)
    return result


def overlap_picture(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, alpha: float = 0.7) -> np.ndarray:
    """Colours hits green, false alarms vermilion and misses blue on the greyed image.

    Args:
        image: ``(H, W, 3)`` uint8.
        truth: ``(H, W)`` bool.
        prediction: ``(H, W)`` bool.
        alpha: Opacity of the colours.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        TypeError: As `overlay`.
        ValueError: As `overlay`.
    """
    _check_image(image)
    _check_mask("truth", truth, image)
    _check_mask("prediction", prediction, image)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    result = np.repeat(grey[..., None], 3, axis=2)
    for pixels, color in (
        (truth & prediction, TRUE_POSITIVE_COLOR),
        (~truth & prediction, FALSE_POSITIVE_COLOR),
        (truth & ~prediction, FALSE_NEGATIVE_COLOR),
    ):
        result[pixels] = np.rint(result[pixels] * (1.0 - alpha) + np.asarray(color) * alpha).astype(np.uint8)
    return result


def save_sample_grid(
    path: str | os.PathLike[str],
    rows: Sequence[SampleRow | Mapping[str, Any] | Sequence[Any]],
    *,
    columns: int = 1,
    title: str | None = None,
    dpi: int = 100,
) -> None:
    """Writes a picture with image, truth, prediction and coloured overlap of each example, its expression above.

    Args:
        path: Where to write; the suffix chooses the format (.png).
        rows: `SampleRow` objects, mappings with their fields, or tuples (image, expression, truth, prediction[, note]).
        columns: How many examples stand side by side.
        title: A line above the whole picture.
        dpi: Pixels per inch; a cell is 1.7 inches wide.

    Raises:
        TypeError: If an image or a mask has another dtype than `SampleRow` says.
        ValueError: If there are no rows, ``columns`` is below 1, or shapes do not fit.
    """
    samples = [_as_row(row) for row in rows]
    if not samples:
        raise ValueError("rows: got none, expected at least one example")
    if columns < 1:
        raise ValueError(f"columns: got {columns!r}, expected at least 1")
    for sample in samples:
        _check_image(sample.image)
        _check_mask("truth", sample.truth, sample.image)
        _check_mask("prediction", sample.prediction, sample.image)
    columns = min(columns, len(samples))
    lines = -(-len(samples) // columns)
    head, foot, caption = (0.35 if title else 0.08), 0.32, 0.38
    block = 4 * _CELL_INCHES + 0.12
    width, height = columns * block + 0.1, lines * (_CELL_INCHES + caption) + head + foot
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.text(
            0.5, 1 - 0.12 / height, title, ha="center", va="top", fontsize=10, fontweight="bold", parse_math=False
        )
    for index, sample in enumerate(samples):
        line, column = divmod(index, columns)
        left = 0.08 + column * block
        top = height - head - line * (_CELL_INCHES + caption)
        _draw_sample(figure, sample, left, top, caption)
    _draw_legend(figure, height)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def save_curves(path: str | os.PathLike[str], log_history: Sequence[Mapping[str, Any]]) -> None:
    """Writes loss and validation metrics against training steps.

    Args:
        path: Where to write; the suffix chooses the format (.png).
        log_history: ``Trainer.state.log_history``: dictionaries with "step" and, in any mixture, "loss", "eval_loss"
            and figures such as "eval_mIoU" or "eval_native_Pr@0.5".

    Raises:
        ValueError: If no entry holds a loss or a validation metric.
    """
    loss = _series(log_history, lambda name: name == "loss")
    eval_loss = _series(log_history, lambda name: name == "eval_loss")
    metrics = _series(log_history, lambda name: name.startswith("eval_") and ("IoU" in name or "Pr@" in name))
    if not (loss or eval_loss or metrics):
        raise ValueError('log_history: found no "loss", "eval_loss" or "eval_...IoU", expected at least one of them')
    panels = [panel for panel in (loss | eval_loss, metrics) if panel]
    figure = Figure(figsize=(5.2 * len(panels), 3.6), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    if loss or eval_loss:
        _draw_losses(axes[0], loss.get("loss"), eval_loss.get("eval_loss"))
    if metrics:
        _draw_metrics(axes[-1], metrics)
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes a uint8 or bool array as a picture, whole or not at all; the suffix chooses the format.

    Args:
        path: Where to write.
        image: ``(H, W, 3)`` uint8, ``(H, W)`` uint8, or ``(H, W)`` bool (written as 0 and 255).

    Raises:
        TypeError: If the dtype is another one.
    """
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    if image.dtype != np.uint8:
        raise TypeError(f"image: got dtype {image.dtype}, expected uint8 or bool")
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary)


def _as_row(row: SampleRow | Mapping[str, Any] | Sequence[Any]) -> SampleRow:
    if isinstance(row, SampleRow):
        values = (row.image, row.expression, row.truth, row.prediction, row.note)
    elif isinstance(row, Mapping):
        values = (row["image"], row["expression"], row["truth"], row["prediction"], row.get("note", ""))
    else:
        values = (*row, "") if len(row) == 4 else tuple(row)
    image, expression, truth, prediction, note = values
    return SampleRow(_array(image), str(expression), _array(truth), _array(prediction), str(note))


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8:
        raise TypeError(f"image: got dtype {image.dtype}, expected uint8")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: got shape {image.shape}, expected (height, width, 3)")


def _check_mask(name: str, mask: np.ndarray, image: np.ndarray) -> None:
    if mask.dtype != np.bool_:
        raise TypeError(f"{name}: got dtype {mask.dtype}, expected bool")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"{name}: got shape {mask.shape}, expected the image's {image.shape[:2]}")


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a neighbour (of four) outside it; the picture's border counts as outside."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _draw_sample(figure: Figure, sample: SampleRow, left: float, top: float, caption: float) -> None:
    """Draws one example whose upper left corner is at (left, top), in inches from the lower left."""
    width, height = figure.get_size_inches()
    # A line holds about 85 characters at this size; what does not fit is cut, never drawn over the note.
    text = "“" + textwrap.shorten(sample.expression, width=72, placeholder=" …") + "”"
    figure.text(left / width, (top - 0.04) / height, text, va="top", fontsize=9.5, color="black", parse_math=False)
    if sample.note:
        right = (left + 4 * _CELL_INCHES - 0.06) / width
        figure.text(
            right, (top - 0.04) / height, sample.note, ha="right", va="top", fontsize=9, color="0.35", parse_math=False
        )
    pictures = (
        sample.image,
        np.repeat(sample.truth[..., None].astype(np.uint8) * 255, 3, axis=2),
        overlay(sample.image, sample.prediction, alpha=0.4),
        overlap_picture(sample.image, sample.truth, sample.prediction),
    )
    side = _CELL_INCHES - 0.06
    for index, (picture, name) in enumerate(zip(pictures, _COLUMN_TITLES, strict=True)):
        x, y = left + index * _CELL_INCHES, top - caption - side
        axes = figure.add_axes((x / width, y / height, side / width, side / height))
        axes.imshow(picture, interpolation="antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor("0.6")
            spine.set_linewidth(0.5)
        axes.set_title(name, fontsize=7.5, color="0.35", pad=1.5)


def _draw_legend(figure: Figure, height: float) -> None:
    entries = (
        ("hit", TRUE_POSITIVE_COLOR),
        ("false alarm", FALSE_POSITIVE_COLOR),
        ("miss", FALSE_NEGATIVE_COLOR),
    )
    handles = [Patch(facecolor=np.asarray(color) / 255, label=label) for label, color in entries]
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.04 / height), ncol=3, fontsize=8, frameon=False
    )


def _series(log_history: Sequence[Mapping[str, Any]], wanted: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Collects ``name -> (steps, values)`` of the entries whose name is wanted, in the order in which names appear."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for entry in log_history:
        if "step" not in entry:
            continue
        for name, value in entry.items():
            if wanted(name) and isinstance(value, int | float):
                steps, values = series.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(float(value))
    return series


def _draw_losses(axes: Any, train: Any, validation: Any) -> None:
    if train:
        steps, values = train
        axes.plot(steps, values, color="#0072B2", alpha=0.3, linewidth=1.0)
        axes.plot(steps, _smooth(values), color="#0072B2", linewidth=1.8, label="training")
    if validation:
        steps, values = validation
        axes.plot(steps, values, color="#D55E00", linewidth=1.8, marker="o", markersize=3, label="validation")
    axes.set_title("loss", fontsize=11)
    _finish_axes(axes)


def _draw_metrics(axes: Any, metrics: Mapping[str, tuple[list[float], list[float]]]) -> None:
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666"]
    for index, (name, (steps, values)) in enumerate(metrics.items()):
        main = "IoU" in name
        axes.plot(
            steps,
            [100 * value for value in values],
            label=name.removeprefix("eval_"),
            color=colors[index % len(colors)],
            linewidth=1.8 if main else 1.0,
            linestyle="-" if main else "--",
            marker="o",
            markersize=3,
        )
    axes.set_title("validation", fontsize=11)
    axes.set_ylabel("%")
    highest = max(100 * value for _, values in metrics.values() for value in values)
    axes.set_ylim(0, max(1.0, 1.05 * highest))
    _finish_axes(axes)


def _finish_axes(axes: Any) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _smooth(values: Sequence[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average, corrected for its start so that the first value is the first value."""
    total, norm, smoothed = 0.0, 0.0, []
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        smoothed.append(total / norm)
    return smoothed
