// Reading, checking and making tensors through the stable ABI: what the operator files of all libraries share. Compiled into
// each library, for the device that it takes.
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

#include "views.h"

namespace rrsis_kernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Throws for a tensor that is not on the library's device. The one function here that each library defines for itself.
void check_device(const Tensor& t, const char* name);

// Device and number of dimensions; these and all sizes; the dtype.
void check_rank(const Tensor& t, const char* name, int64_t dim);
void check_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes);
void check_dtype(const Tensor& t, const char* name, ScalarType dtype);

// dtype as the kernels see it; throws for one that they do not take.
int dtype_code(const Tensor& t, const char* name);
int mask_dtype_code(const Tensor& t, const char* name);
// float for every reduced precision, double for double: the dtype of statistics.
ScalarType statistics_dtype(const Tensor& t);

// A new tensor in contiguous layout on a device, given as the shim does.
Tensor empty_on(int32_t device_type, int32_t device_index, std::initializer_list<int64_t> sizes, ScalarType dtype);

// The tensor itself where its last dimension is contiguous, else a copy.
Tensor readable(const Tensor& t);

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
