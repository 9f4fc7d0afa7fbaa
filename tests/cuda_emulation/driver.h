// What a file drive_<op>.cpp tells driver.cpp: problems on which its launchers are called.
#pragma once

#include <driver_types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/views.h"
#include "guarded.h"

namespace driver {

// One call of a problem's launchers. Every buffer touches a page that cannot be touched.
class Run {
 public:
  explicit Run(rk::emulation::Guarded::Against against) : against_(against) {}

  // Normal values times `scale` in a dtype; of kUInt8, 0 or 1.
  const void* input(int64_t count, int dtype, double scale = 1.0);
  // What a call must fill: NaN before it, and after it not.
  void* output(int64_t count, int dtype);
  // NaN before the call.
  void* workspace(size_t bytes);
  // A launch's own word; throws for any but cudaSuccess.
  void check(cudaError_t error, const char* what);

  // The outputs' bytes, one after the other. Throws if one holds NaN.
  std::string results() const;

 private:
  struct Output {
    const char* data;
    int64_t count;
    int dtype;
  };
  char* allocate(size_t bytes, size_t alignment);

  rk::emulation::Guarded::Against against_;
  std::mt19937_64 random_{1};
  std::vector<std::unique_ptr<rk::emulation::Guarded>> buffers_;
  std::vector<Output> outputs_;
};

// Makes a problem known to the program, before main().
struct Problem {
  Problem(std::string name, std::function<void(Run&)> body);
};

// A (B, H, L, C) or (B, N, C) input, contiguous.
rrsis_kernels::TokenView tokens(Run& run, int64_t B, int64_t H, int64_t L, int64_t C, int dtype, double scale = 1.0);
rrsis_kernels::RowView rows(Run& run, int64_t B, int64_t N, int64_t C, int dtype, double scale = 1.0);

}  // namespace driver
