"""The model as ONNX: written from an exported graph, run by onnxruntime.

`rrsis.export` calls this for files that end in .onnx. The graph has standard operators alone; metadata are the same as
a package's. Needs the extra `[onnx]`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

INPUTS = ("pixel_values", "input_ids", "attention_mask")
OUTPUT = "logits"

MAX_BATCH = 64
"""Most images in a batch that the graph is traced for."""

REQUIRED = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Checks for the packages that write, read and run ONNX.

    Raises:
        ValueError: when one is not installed.
    """
    if missing := [name for name in REQUIRED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"out: .onnx needs {', '.join(missing)}, not installed here (pip install 'rrsis[onnx]')")


def write(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a graph as one ONNX file.

    Args:
        program: the graph; inputs are `INPUTS`, the result is `OUTPUT`.
        path: the file.
        metadata: is kept in the file.

    Raises:
        ValueError: when an operator has no standard one, or the weights are too large for a single file (2 GB).
    """
    onnx = torch.onnx.export(
        program,
        dynamo=True,
        input_names=INPUTS,
        output_names=[OUTPUT],
        custom_translation_table={torch.ops.aten.remainder.Scalar: _remainder},
        verbose=False,
    )
    if foreign := sorted({f"{node.domain}::{node.op_type}" for node in onnx.model.graph if node.domain}):
        raise ValueError(f"model: its graph calls {', '.join(foreign)}, which are no standard operators of ONNX")
    onnx.model.metadata_props.update(metadata)
    try:
        onnx.save(path, external_data=False)
    except (RuntimeError, ValueError) as error:  # protobuf's, at 2 GB
        raise ValueError(f"out: the model does not go into one file: {error}") from error


def _remainder(dividend: Any, divisor: Any) -> Any:
    """`aten::remainder` of integers; the exporter's own takes no divisor that is known only when the graph runs."""
    from onnxscript import opset18

    return opset18.Mod(dividend, opset18.CastLike(divisor, dividend))


def load(path: str | os.PathLike[str]) -> Callable[..., Tensor]:
    """Loads a file into onnxruntime, on the CPU.

    Returns:
        A function of the tensors named in `INPUTS`, which returns the logits.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        feeds = {name: value.cpu().numpy() for name, value in zip(INPUTS, inputs, strict=True)}
        return torch.from_numpy(session.run([OUTPUT], feeds)[0])

    return run
