#include "runtime.h"

namespace rrsis_kernels {

int kernel_dtype(const Tensor& t, const char* name) {
  const int code = dtype_code(t, name);
  STD_TORCH_CHECK(code != kFloat64, name, " has dtype Double, but the CUDA kernels take float32, bfloat16 or float16");
  return code;
}

Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype, const Tensor& like) {
  int32_t device_type = 0, device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  return empty_on(device_type, device_index, sizes, dtype);
}

Tensor workspace(int64_t bytes, const Tensor& like) { return empty({bytes}, ScalarType::Byte, like); }

}  // namespace rrsis_kernels
