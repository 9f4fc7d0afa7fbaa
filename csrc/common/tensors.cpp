#include "tensors.h"

#include <string>

namespace rrsis_kernels {
namespace {

std::string shape_of(const Tensor& t) {
  std::string s = "(";
  for (int64_t i = 0; i < t.dim(); ++i) s += (i ? ", " : "") + std::to_string(t.size(i));
  return s + ")";
}

}  // namespace

void check_rank(const Tensor& t, const char* name, int64_t dim) {
  check_device(t, name);
  STD_TORCH_CHECK(t.dim() == dim, name, " has ", t.dim(), " dimensions, but ", dim, " were due");
}

void check_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
  check_rank(t, name, static_cast<int64_t>(sizes.size()));
  for (int64_t i = 0; i < t.dim(); ++i)
    STD_TORCH_CHECK(t.size(i) == sizes.begin()[i], name, " has shape ", shape_of(t), ", but dimension ", i, " should be ",
                    sizes.begin()[i]);
}

void check_dtype(const Tensor& t, const char* name, ScalarType dtype) {
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, " has dtype ", torch::headeronly::toString(t.scalar_type()), ", but ",
                  torch::headeronly::toString(dtype), " was due");
}

int dtype_code(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return kFloat32;
    case ScalarType::Double: return kFloat64;
    case ScalarType::BFloat16: return kBFloat16;
    case ScalarType::Half: return kFloat16;
    default: break;
  }
  STD_TORCH_CHECK(false, name, " has dtype ", torch::headeronly::toString(t.scalar_type()),
                  ", but float32, float64, bfloat16 or float16 was due");
  return -1;
}

int mask_dtype_code(const Tensor& t, const char* name) {
  const ScalarType s = t.scalar_type();
  return s == ScalarType::Bool || s == ScalarType::Byte ? static_cast<int>(kUInt8) : dtype_code(t, name);
}

ScalarType statistics_dtype(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor empty_on(int32_t device_type, int32_t device_index, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  int64_t strides[8], running = 1;
  const int64_t dim = static_cast<int64_t>(sizes.size());
  for (int64_t i = dim - 1; i >= 0; --i) {
    strides[i] = running;
    const int64_t size = sizes.begin()[i];
    running *= size > 1 ? size : 1;
  }
  const int32_t code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes.begin(), strides, code, device_type, device_index, &handle));
  return Tensor(handle);
}

Tensor readable(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  if (last < 0 || t.size(last) <= 1 || t.stride(last) == 1) return t;
  return torch::stable::contiguous(t);
}

RowView row_view(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1)}; }

TokenView token_view(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2)}; }

}  // namespace rrsis_kernels
