"""Checks of what the public functions are given: one clear error that names the argument, what came, what was due."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The dtypes that features, logits and scores may have."""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(_name(dtype) for dtype in dtypes)


class Arguments:
    """Checks tensors one after another against what the ones before have fixed.

    The first tensor fixes device and dtype; each new letter in a layout such as "B N C" is fixed by the first tensor
    that has it.

    Args:
        function: name of the public function, for the messages.
    """

    def __init__(self, function: str) -> None:
        self.function = function
        self.sizes: dict[str, int] = {}
        self.sources: dict[str, str] = {}
        self.first: str | None = None
        self.device: torch.device | None = None
        self.dtype: torch.dtype | None = None

    def check(
        self, name: str, tensor: Tensor | None, layout: str, dtypes: tuple[torch.dtype, ...] | None = None
    ) -> None:
        """Checks one tensor.

        Args:
            name: the argument's name.
            tensor: what came.
            layout: letters of its dimensions, separated by spaces.
            dtypes: what it may be; None for the first tensor's dtype.

        Raises:
            TypeError: not a tensor, or of a wrong dtype.
            ValueError: of a wrong rank, size or device.
        """
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{self.function}: {name} must be a tensor ({layout}), got {type(tensor).__name__}")
        letters = layout.split(" ")
        if tensor.dim() != len(letters):
            raise ValueError(
                f"{self.function}: {name} must have {len(letters)} dimensions ({', '.join(letters)}), "
                f"got {tensor.dim()} in shape {tuple(tensor.shape)}"
            )
        self._check_dtype(name, tensor, dtypes)
        if self.device is None:
            self.first, self.device, self.dtype = name, tensor.device, tensor.dtype
        elif tensor.device != self.device:
            raise ValueError(
                f"{self.function}: {name} must be on {self.device} as {self.first} is, got {tensor.device}"
            )
        self._check_sizes(name, tensor, letters)

    def _check_dtype(self, name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...] | None) -> None:
        if dtypes is None and self.dtype is None:
            dtypes = FLOATING
        if dtypes is not None:
            if tensor.dtype not in dtypes:
                raise TypeError(f"{self.function}: {name} must be {_names(dtypes)}, got {_name(tensor.dtype)}")
        elif tensor.dtype != self.dtype:
            raise TypeError(
                f"{self.function}: {name} must be {_name(self.dtype)} as {self.first} is, got {_name(tensor.dtype)}"
            )

    def _check_sizes(self, name: str, tensor: Tensor, letters: list[str]) -> None:
        for position, letter in enumerate(letters):
            size = tensor.shape[position]
            if letter not in self.sizes:
                self.sizes[letter] = size
                self.sources[letter] = name
            elif size != self.sizes[letter]:
                raise ValueError(
                    f"{self.function}: {name} ({', '.join(letters)}) must have {letter} = {self.sizes[letter]} "
                    f"as {self.sources[letter]} has, got {size} in shape {tuple(tensor.shape)}"
                )


def check_choice(function: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Checks that a word is one of those allowed.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
