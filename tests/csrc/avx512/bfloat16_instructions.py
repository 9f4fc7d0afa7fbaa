"""Compares the instructions on bf16, run on the emulated processor, with what is written out in their place.

    python bfloat16_instructions.py COMPATIBILITY INSTRUCTIONS WRITTEN_OUT

takes the libraries that `build` makes and prints each difference, and "compared N vectors" at the end.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import bochs
import torch

HERE = Path(__file__).parent
LANES = 16


def build(compiler: Sequence[str], folder: Path) -> list[Path]:
    """Compiles the three libraries of the command line."""
    made = [bochs.build_compatibility(compiler, folder)]
    include = f"-I{HERE.parents[2] / 'csrc' / 'cpu'}"
    for name, flags in {"instructions": ["-DRRSIS_BFLOAT16_INSTRUCTIONS"], "written_out": []}.items():
        made.append(folder / f"{name}.so")
        command = [*compiler, "-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wno-psabi", *flags]
        source = str(HERE / "bfloat16_instructions.cpp")
        subprocess.run([*command, include, source, "-o", str(made[-1])], check=True)
    return made


def numbers() -> torch.Tensor:
    """fp32 numbers of every kind: ordinary, subnormal, huge, infinite, NaN, and halfway between two bf16."""
    generator = torch.Generator().manual_seed(0)
    ordinary = torch.randn(2000, generator=generator)
    bits = torch.randint(-(2**31), 2**31, (2000,), generator=generator, dtype=torch.int64).to(torch.int32)
    halfway = (bits & ~0xFFFF) | 0x8000
    scaled = ordinary * torch.tensor(2.0) ** torch.randint(-140, 120, (2000,), generator=generator)
    special = torch.tensor([0.0, -0.0, 1.0, torch.inf, -torch.inf, torch.nan, 1e-40, -1e-40, 3.4e38, -3.4e38])
    parts = [ordinary, bits.view(torch.float32), halfway.view(torch.float32), scaled, special.repeat(50)]
    mixed = torch.cat(parts)
    return mixed[torch.randperm(len(mixed), generator=generator)]


def vectors(seed: int) -> Iterator[torch.Tensor]:
    """The numbers in another order, a vector at a time."""
    mixed = numbers()
    order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(seed))
    yield from mixed[order][: len(mixed) // LANES * LANES].view(-1, LANES)


def different(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Which of the numbers in two vectors differ in their bits; those of a NaN may."""
    both_nan = x.view(dtype).isnan() & y.view(dtype).isnan()
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    return (x.view(integer) != y.view(integer)) & ~both_nan


def main() -> None:
    """The command line."""
    compatibility, instructions, written_out = map(Path, sys.argv[1:])
    try:
        processor = bochs.Processor(bochs.load(compatibility))
    except bochs.CannotEmulateError as error:
        print(f"cannot emulate: {error}")
        return
    libraries = ctypes.CDLL(str(instructions)), ctypes.CDLL(str(written_out))
    compared = 0
    for name, dtype in {"dot": torch.float32, "narrow_two": torch.bfloat16}.items():
        emulated, native = (library[name] for library in libraries)
        for inputs in zip(vectors(1), vectors(2), vectors(3), strict=True):
            found, due = inputs[0].clone(), inputs[0].clone()
            operands = [tensor.data_ptr() for tensor in inputs[1:]]
            processor.call(ctypes.cast(emulated, ctypes.c_void_p).value, found.data_ptr(), *operands)
            native(*map(ctypes.c_void_p, (due.data_ptr(), *operands)))
            compared += 1
            if (wrong := different(found, due, dtype)).any():
                lane = int(wrong.nonzero()[0]) * LANES // len(wrong)
                bits = [f"{int(x.view(torch.int32)[lane]) & 0xFFFFFFFF:08x}" for x in (*inputs, found, due)]
                print(f"{name} of {bits[:3]}: {bits[3]}, written out {bits[4]}")
    print(f"compared {compared} vectors", flush=True)
    os._exit(0)  # bochscpu crashes when the interpreter tears it down


if __name__ == "__main__":
    main()
