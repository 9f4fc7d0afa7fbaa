// cuda_device_check(Tensor) -> Tensor: doubles a contiguous fp32 tensor with one trivial kernel. It shows that kernels of
// this build run on the device at hand and on torch's current stream.
#include "device_check.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

Tensor cuda_device_check(Tensor input) {
  check_device(input, "input");
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float, "input: expected float32");
  STD_TORCH_CHECK(input.is_contiguous(), "input: expected a contiguous tensor");
  Tensor output = torch::stable::empty_like(input);
  if (input.numel() == 0) return output;
  const OnDevice on(input);
  const DeviceCheckArgs args{static_cast<const float*>(input.const_data_ptr()), static_cast<float*>(output.mutable_data_ptr()),
                             input.numel()};
  check_launch(double_values(args, on.stream()), "cuda_device_check");
  return output;
}

}  // namespace
}  // namespace rrsis_kernels

RRSIS_CUDA_OPERATORS(m) { m.impl("cuda_device_check", TORCH_BOX(&rrsis_kernels::cuda_device_check)); }
