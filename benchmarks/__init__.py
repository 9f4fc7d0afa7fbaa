"""Benchmarks of the kernels against their peers: ``pytest benchmarks/ --benchmark-only``; see README.md here."""
