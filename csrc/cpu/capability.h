// Which instruction set the kernels use: 0 baseline, 1 AVX2 + FMA + F16C, 2 AVX-512, 3 AVX-512 with BF16.
#pragma once

#include <cstdint>

namespace rrsis_kernels {

// The level in force: what was set, else what RRSIS_KERNELS_CPU_CAPABILITY names, else the best one that may be chosen
// automatically.
int64_t cpu_capability();

// Sets the level for this process and returns it; -1 goes back to the automatic choice. Where the processor has not got the
// level nothing changes and -1 is returned.
int64_t set_cpu_capability(int64_t level);

}  // namespace rrsis_kernels
