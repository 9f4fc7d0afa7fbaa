#include "device_check.h"

#include "launch.cuh"

namespace rrsis_kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 65535;

__global__ void double_values_kernel(DeviceCheckArgs args) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < args.count; i += step)
    args.output[i] = 2.0f * args.input[i];
}

}  // namespace

cudaError_t double_values(const DeviceCheckArgs& args, cudaStream_t stream) {
  const int64_t wanted = (args.count + kThreads - 1) / kThreads;
  const unsigned blocks = static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks);
  return rk::launch(double_values_kernel, dim3(blocks), dim3(kThreads), 0, stream, args);
}

}  // namespace rrsis_kernels
