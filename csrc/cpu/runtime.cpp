#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rrsis_kernels {
namespace {

// Scratch beyond this is given back at the end of the call.
constexpr size_t kKeep = size_t(64) << 20;

struct Arena {
  char* data = nullptr;
  size_t bytes = 0;
  ~Arena() { std::free(data); }
  char* reserve(size_t wanted) {
    if (wanted > bytes) {
      drop();
      const size_t size = (wanted + 4095) / 4096 * 4096;
      void* p = nullptr;
      STD_TORCH_CHECK(posix_memalign(&p, 64, size) == 0, "rrsis_kernels: cannot allocate ", size, " bytes of working memory");
      data = static_cast<char*>(p);
      bytes = size;
    }
    return data;
  }
  void drop() {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
};

// Asks for huge pages in new memory: the first touch of a page can cost more than the arithmetic on it (5 us for 4 KiB were
// seen on a virtual machine, which made 20 ms of a forward that takes 30). Does nothing where the system has them off.
void prefer_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kHuge - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

thread_local Arena shared_arena, thread_arena;

std::string shape_of(const Tensor& t) {
  std::string s = "(";
  for (int64_t i = 0; i < t.dim(); ++i) s += (i ? ", " : "") + std::to_string(t.size(i));
  return s + ")";
}

}  // namespace

char* shared_scratch(size_t bytes) { return shared_arena.reserve(bytes); }
char* thread_scratch(size_t bytes) { return thread_arena.reserve(bytes); }
void release_large_scratch() {
  if (shared_arena.bytes > kKeep) shared_arena.drop();
}

Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  int64_t strides[8], running = 1;
  const int64_t dim = static_cast<int64_t>(sizes.size());
  for (int64_t i = dim - 1; i >= 0; --i) {
    strides[i] = running;
    const int64_t size = sizes.begin()[i];
    running *= size > 1 ? size : 1;
  }
  const int32_t code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes.begin(), strides, code, aoti_torch_device_type_cpu(), 0, &handle));
  Tensor t(handle);
  prefer_huge_pages(t.mutable_data_ptr(), static_cast<size_t>(t.numel()) * t.element_size());
  return t;
}

Tensor zeros(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  Tensor t = empty(sizes, dtype);
  if (t.numel() > 0) std::memset(t.mutable_data_ptr(), 0, static_cast<size_t>(t.numel()) * t.element_size());
  return t;
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

Tensor readable(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  if (last < 0 || t.size(last) <= 1 || t.stride(last) == 1) return t;
  return torch::stable::contiguous(t);
}

void check_cpu(const Tensor& t, const char* name, int64_t dim) {
  STD_TORCH_CHECK(t.is_cpu(), name, " is not on the CPU");
  STD_TORCH_CHECK(t.dim() == dim, name, " has ", t.dim(), " dimensions, but ", dim, " were due");
}

void check_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
  check_cpu(t, name, static_cast<int64_t>(sizes.size()));
  for (int64_t i = 0; i < t.dim(); ++i)
    STD_TORCH_CHECK(t.size(i) == sizes.begin()[i], name, " has shape ", shape_of(t), ", but dimension ", i, " should be ",
                    sizes.begin()[i]);
}

void check_dtype(const Tensor& t, const char* name, ScalarType dtype) {
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, " has dtype ", torch::headeronly::toString(t.scalar_type()), ", but ",
                  torch::headeronly::toString(dtype), " was due");
}

RowView row_view(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1)}; }

TokenView token_view(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2)}; }

}  // namespace rrsis_kernels
