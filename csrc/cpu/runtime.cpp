#include "runtime.h"

#include <cstdlib>
#include <cstring>

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

}  // namespace

char* shared_scratch(size_t bytes) { return shared_arena.reserve(bytes); }
char* thread_scratch(size_t bytes) { return thread_arena.reserve(bytes); }
void release_large_scratch() {
  if (shared_arena.bytes > kKeep) shared_arena.drop();
}

void check_device(const Tensor& t, const char* name) { STD_TORCH_CHECK(t.is_cpu(), name, " is not on the CPU"); }

Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  Tensor t = empty_on(aoti_torch_device_type_cpu(), 0, sizes, dtype);
  prefer_huge_pages(t.mutable_data_ptr(), static_cast<size_t>(t.numel()) * t.element_size());
  return t;
}

Tensor zeros(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  Tensor t = empty(sizes, dtype);
  if (t.numel() > 0) std::memset(t.mutable_data_ptr(), 0, static_cast<size_t>(t.numel()) * t.element_size());
  return t;
}

}  // namespace rrsis_kernels
