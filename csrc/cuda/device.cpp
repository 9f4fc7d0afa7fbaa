// What runtime.h and common/tensors.h leave to the device; tests/cuda_emulation/library.cpp has the host's versions.
#include <cuda_runtime_api.h>

#include "runtime.h"

namespace rrsis_kernels {

void check_device(const Tensor& t, const char* name) { STD_TORCH_CHECK(t.is_cuda(), name, " is not on a CUDA device"); }

OnDevice::OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  stream_ = static_cast<cudaStream_t>(stream);
}

int64_t shared_memory_limit(const Tensor& t) {
  int bytes = 0;
  check_launch(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, t.get_device_index()), "shared_memory_limit");
  return bytes;
}

void check_launch(cudaError_t error, const char* op) {
  STD_TORCH_CHECK(error == cudaSuccess, "rrsis_kernels.", op, ": a CUDA launch failed: ", cudaGetErrorString(error));
}

}  // namespace rrsis_kernels
