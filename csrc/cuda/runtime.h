// What the torch sides of the CUDA operators (<op>_op.cpp) share. They are compiled by the host compiler and hold no kernel;
// <op>.cu holds the kernels and no torch, and <op>.h what one says to the other.
#pragma once

#include <driver_types.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "../common/tensors.h"

// STABLE_TORCH_LIBRARY_IMPL for these operators: on CUDA, or, where tests/cuda_emulation compiles the same files for the
// host, on the CPU and in a namespace of its own.
#ifdef RRSIS_CUDA_EMULATION
#define RRSIS_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels_emulated, CPU, m)
#else
#define RRSIS_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CUDA, m)
#endif

namespace rrsis_kernels {

// While it lives, a tensor's device is the current one, so that launches go there.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t);
  // PyTorch's current stream of that device.
  cudaStream_t stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  cudaStream_t stream_ = nullptr;
};

// Bytes of shared memory that a block may ask for on a tensor's device.
int64_t shared_memory_limit(const Tensor& t);

// dtype_code, for kernels that compute in fp32: throws for float64 too.
int kernel_dtype(const Tensor& t, const char* name);

// Throws unless a launch of an operator went well.
void check_launch(cudaError_t error, const char* op);

// A new tensor in contiguous layout on the device of another.
Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype, const Tensor& like);
// Working memory there. It may be given up while kernels still use it: PyTorch gives it to later work of the stream only.
Tensor workspace(int64_t bytes, const Tensor& like);

}  // namespace rrsis_kernels
