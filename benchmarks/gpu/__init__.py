"""Benchmarks on a GPU: `python -m benchmarks.gpu --device cuda`; and what a kernel has to move and to multiply."""
