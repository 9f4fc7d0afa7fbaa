// What the operator files share: the chosen kernels, working memory, threads, and reading tensors through the stable ABI.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "kernels.h"

namespace rrsis_kernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

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

// dtype as the kernels see it; throws for one that they do not take.
int dtype_code(const Tensor& t, const char* name);
int mask_dtype_code(const Tensor& t, const char* name);
// float for every reduced precision, double for double: the dtype of statistics.
ScalarType statistics_dtype(const Tensor& t);

// The tensor itself where its last dimension is contiguous, else a copy.
Tensor readable(const Tensor& t);

void check_cpu(const Tensor& t, const char* name, int64_t dim);
void check_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes);
void check_dtype(const Tensor& t, const char* name, ScalarType dtype);

// Views of readable tensors, for (B, N, C) or (B, N), and (B, H, L, C) or (B, H, L).
RowView row_view(const Tensor& t);
TokenView token_view(const Tensor& t);

// An optional input made readable and kept alive as long as the arguments that point into it.
struct Held {
  OptionalTensor tensor;
  explicit Held(const OptionalTensor& t) {
    if (t.has_value()) tensor = readable(*t);
  }
  bool has() const { return tensor.has_value(); }
  const Tensor& get() const { return *tensor; }
};

}  // namespace rrsis_kernels
