// Memory between two pages that cannot be touched: an access beyond it ends the program.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace rk::emulation {

class Guarded {
 public:
  enum class Against { kEnd, kBegin };  // the page that the memory touches, at most `alignment` - 1 bytes off at its end

  Guarded(size_t bytes, size_t alignment, Against against = Against::kEnd) {
    const size_t inner = (bytes + alignment + kPage - 1) / kPage * kPage;
    size_ = inner + 2 * kPage;
    void* map = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(static_cast<char*>(map) + kPage, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    map_ = static_cast<char*>(map);
    data_ = map_ + kPage + (against == Against::kEnd ? (inner - bytes) / alignment * alignment : 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(map_, size_); }
  char* data() const { return data_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t size_;
  char *map_, *data_;
};

}  // namespace rk::emulation
