"""Names that a build gives: of the torch namespace, and of the files of the compiled libraries.

`scripts/hub_kernel_project.py` puts another module in this one's place, for builds that are named anew each time.
"""

from __future__ import annotations

NAMESPACE = "rrsis_kernels"

LIBRARIES = {"_C": "_C", "_C_cuda": "_C_cuda"}
"""Beginning of the file name of each library; one that the build does not have is left out."""
