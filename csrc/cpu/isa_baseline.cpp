// Kernels for every x86-64 machine (SSE2), and for other architectures with 16-byte vectors.
#include "kernels.h"

#define RRSIS_VECTOR_BYTES 16
#define RRSIS_PANEL 2
#define RRSIS_BLOCK_ROWS 6
#include "simd/all.h"

namespace rrsis_kernels {
const KernelTable& baseline_kernels() { return kTable; }
}  // namespace rrsis_kernels
