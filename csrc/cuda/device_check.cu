// cuda_device_check(Tensor) -> Tensor: doubles a contiguous fp32 tensor with one trivial kernel.
//
// It shows that a kernel compiled by this project's build, registered through torch's stable ABI, runs on the device at
// hand and on torch's current stream; the real CUDA kernels come beside it.

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>

namespace {

using torch::stable::Tensor;

__global__ void double_values(const float* __restrict__ input, float* __restrict__ output, int64_t count) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    output[i] = 2.0f * input[i];
  }
}

Tensor cuda_device_check(const Tensor& input) {
  STD_TORCH_CHECK(input.is_cuda(), "input: expected a CUDA tensor");
  STD_TORCH_CHECK(input.scalar_type() == torch::headeronly::ScalarType::Float, "input: expected float32");
  STD_TORCH_CHECK(input.is_contiguous(), "input: expected a contiguous tensor");
  Tensor output = torch::stable::empty_like(input);
  const int64_t count = input.numel();
  if (count == 0) {
    return output;
  }
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(input.get_device_index(), &stream));
  constexpr int64_t threads = 256;
  const int64_t blocks = std::min<int64_t>((count + threads - 1) / threads, 65535);
  double_values<<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const float*>(input.const_data_ptr()), static_cast<float*>(output.mutable_data_ptr()), count);
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "cuda_device_check: ", cudaGetErrorString(error));
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CUDA, m) {
  m.impl("cuda_device_check", TORCH_BOX(&cuda_device_check));
}
