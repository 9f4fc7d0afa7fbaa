// How operator files describe tensors to kernels that know no torch: plain structs. Nothing here may bring in
// standard-library functions (cpu/kernels.h says why).
#pragma once

#include <stdint.h>

namespace rrsis_kernels {

enum DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3, kUInt8 = 4 };

// A (B, H, L, C) tensor with a contiguous last dimension; strides count elements. A null pointer reads as zeros.
struct TokenView {
  const void* data;
  int64_t batch, head, row;
};

// A (B, N, C) or (B, N) tensor; `row` is unused when the second dimension is the contiguous one.
struct RowView {
  const void* data;
  int64_t batch, row;
};

}  // namespace rrsis_kernels
