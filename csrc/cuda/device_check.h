// The kernel behind cuda_device_check: output[i] = 2 input[i].
#pragma once

#include <driver_types.h>
#include <stdint.h>

namespace rrsis_kernels {

struct DeviceCheckArgs {
  const float* input;
  float* output;
  int64_t count;  // above 0
};

cudaError_t double_values(const DeviceCheckArgs& args, cudaStream_t stream);

}  // namespace rrsis_kernels
