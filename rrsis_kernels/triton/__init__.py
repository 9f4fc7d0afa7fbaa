"""Triton kernels of the operators, one module per operator; nothing here is imported unless Triton is to run."""
