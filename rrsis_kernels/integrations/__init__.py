"""Our operators inside other people's models; nothing here is imported with `rrsis_kernels` itself."""
