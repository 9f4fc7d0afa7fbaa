// The operators of the torch namespace `rrsis_kernels`. Their schemas come from rrsis_kernels/schemas.txt: setup.py turns
// each line into one m.def(...). The implementations register themselves, per device, from cpu/ and cuda/.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(rrsis_kernels, m) {
#include "schemas.inc"
}
