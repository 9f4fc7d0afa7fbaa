"""Where a timm model can be cut into four stages that run one after the other.

timm says which module ends each stage (`feature_info`), not how to get from one to the next. Here the model runs once
on tensors without data, and what passes from module to module is followed: a cut holds only where each module was
handed the very tensor that the one before returned, so that running the modules in turn is what the model itself does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

STRIDES = (4, 8, 16, 32)
"""The four stages end at these shares of the image."""


class UnsuitedError(ValueError):
    """The model has no four stages that run one after the other; the message says where it stops."""


class Stages(NamedTuple):
    """Names of a model's modules, in the order in which they run.

    Attributes:
        stem: what comes before the first stage.
        stages: what each stage consists of.
        channels: of each stage's features.
    """

    stem: list[str]
    stages: list[list[str]]
    channels: list[int]


@dataclass
class _Call:
    """One call of a module; tensors with their version, which counts what was written into them."""

    name: str
    arguments: tuple[Any, ...]
    version: int | None
    output: Any = None
    output_version: int | None = None
    end: int = field(default=-1)


def find_stages(model: nn.Module, image_size: int | None = None) -> Stages:
    """Finds the four stages of a timm model.

    Args:
        model: made by `timm.create_model`; its weights are neither read nor written, and may be on the meta device.
        image_size: side of the images, where the model itself does not say; timm's default when not given.

    Raises:
        UnsuitedError: when it has none that run one after the other.
    """
    ends = _stage_ends(model)
    image, calls = _watch(model, image_size)
    names, position, current, version = [], 0, image, image._version
    features: list[tuple[Tensor, int]] = []
    for end in ends:
        stage: list[str] = []
        while not stage or stage[-1] != end["module"]:
            # The outermost of the modules that take the tensor is called first.
            index = next(
                (
                    index
                    for index in range(position, len(calls))
                    if _takes(calls[index], current, version) and not end["module"].startswith(f"{calls[index].name}.")
                ),
                None,
            )
            if index is None:
                before = [*(name for part in names for name in part), *stage]
                after = f"what {before[-1]} returns" if before else "the image"
                raise UnsuitedError(f"no module takes {after} as it is, on the way to {end['module']}")
            call = calls[index]
            stage.append(call.name)
            position, current, version = call.end, call.output, call.output_version
        _check_features(model, end, current, image)
        names.append(stage)
        features.append((current, version))
    for (tensor, written), end in zip(features[:-1], ends, strict=False):
        if tensor._version != written:  # features are read again after the next stage
            raise UnsuitedError(f"what {end['module']} returns is written over by the stage after it")
    first = names[0]
    return Stages(first[:-1], [first[-1:], *names[1:]], [end["num_chs"] for end in ends])


def _stage_ends(model: nn.Module) -> list[dict[str, Any]]:
    """The entry of `feature_info` for the last module at each of `STRIDES`."""
    entries = list(getattr(model, "feature_info", None) or [])
    by_stride = {entry["reduction"]: entry for entry in entries}
    if not set(STRIDES) <= set(by_stride):
        given = sorted(by_stride)
        raise UnsuitedError(f"its features are at strides {given}, due are {list(STRIDES)}")
    ends = [by_stride[stride] for stride in STRIDES]
    modules = dict(model.named_modules())
    for end in ends:
        if end["module"] not in modules or end.get("hook_type", "forward") != "forward":
            raise UnsuitedError(f"its features are not what {end['module']} returns")
    return ends


def _watch(model: nn.Module, image_size: int | None) -> tuple[Tensor, list[_Call]]:
    """Runs a model on an image without data; returns the image and the modules' calls, in order of their start.

    Raises:
        UnsuitedError: when it does not run.
    """
    calls: list[_Call] = []
    running: list[_Call] = []

    def begin(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        version = _times_written(arguments[0]) if arguments else None
        call = _Call(name, (*arguments, *keywords.values()), version)
        calls.append(call)
        running.append(call)

    def finish(output: Any) -> None:
        call = running.pop()
        call.output, call.end = output, len(calls)
        call.output_version = _times_written(output)

    handles = []
    for name, module in model.named_modules():
        if name:
            hook = module.register_forward_pre_hook(
                lambda _, arguments, keywords, name=name: begin(name, arguments, keywords), with_kwargs=True
            )
            handles += [hook, module.register_forward_hook(lambda _, arguments, output: finish(output))]
    training, size = model.training, _input_size(model, image_size)
    model.eval()
    complaints = logging.getLogger("torch._subclasses.fake_tensor")  # it prints what is raised as well
    muted, complaints.disabled = complaints.disabled, True
    try:
        with torch.inference_mode(False), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            image = torch.empty(1, 3, *size, device=next(model.parameters()).device)
            model.forward_features(image)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UnsuitedError(f"it does not run on an image of {size[0]} x {size[1]}: {error}") from error
    finally:
        complaints.disabled = muted
        model.train(training)
        for handle in handles:
            handle.remove()
    return image, calls


def _times_written(value: Any) -> int | None:
    # Weights that are made in inference mode do not count it.
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def _input_size(model: nn.Module, image_size: int | None) -> tuple[int, int]:
    """Height and width of the images that a model was made for, or shall take."""
    for module in model.modules():
        if size := getattr(module, "img_size", None):
            return (size, size) if isinstance(size, int) else tuple(size)
    if image_size is not None:
        return image_size, image_size
    # What takes any size takes one that all strides divide.
    height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in model.default_cfg["input_size"][-2:])
    return height, width


def _takes(call: _Call, tensor: Tensor, version: int) -> bool:
    """Whether a call was given this tensor, unwritten since, and nothing else."""
    return len(call.arguments) == 1 and call.arguments[0] is tensor and call.version == version


def _check_features(model: nn.Module, end: dict[str, Any], features: Any, image: Tensor) -> None:
    size = [length // end["reduction"] for length in image.shape[2:]]
    channels = [end["num_chs"]]
    due = [1, *size, *channels] if is_channels_last(model) else [1, *channels, *size]
    if not isinstance(features, Tensor) or list(features.shape) != due:
        got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UnsuitedError(f"{end['module']} returns {got}, due is {due}")


def is_channels_last(model: nn.Module) -> bool:
    """Whether a timm model's features are (B, h, w, C), not (B, C, h, w)."""
    return getattr(model, "output_fmt", "NCHW") == "NHWC"
