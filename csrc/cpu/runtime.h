// What the operator files share: the chosen kernels, working memory, threads, and new tensors.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <initializer_list>

#include "../common/tensors.h"
#include "kernels.h"

namespace rrsis_kernels {

// Kernels of the capability in force for inputs of a DType. Throws when RRSIS_KERNELS_CPU_CAPABILITY asks for what this processor has not got.
const KernelTable& kernels(int dtype);

// Working memory, aligned and kept for the next call up to a limit: fresh pages of large buffers cost more than some
// calls. `shared` belongs to the calling thread for one operator call, `thread` to whichever thread asks.
char* shared_scratch(size_t bytes);
char* thread_scratch(size_t bytes);
void release_large_scratch();

// Calls f(begin, end) on the threads of PyTorch's pool; `work` (about flops) per unit keeps small jobs on one thread.
template <class F>
void parallel(int64_t units, double work, const F& f) {
  constexpr double kWorthAThread = 1e6;
  if (units <= 0) return;
  const double grain = kWorthAThread / (work > 1 ? work : 1);
  torch::stable::parallel_for(0, units, grain < 1 ? 1 : (grain > (double)units ? units : (int64_t)grain), f);
}

// A new tensor in contiguous layout on the CPU.
Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype);
Tensor zeros(std::initializer_list<int64_t> sizes, ScalarType dtype);

}  // namespace rrsis_kernels
