#include "capability.h"

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512bf16"};
constexpr int kLevels = 4;
// What the tests have passed on, on real processors (docs/verified.md); anything else must be asked for.
constexpr int kBestAutomatic = 3;

bool supported(int level) {
  if (level == 0) return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (level == 1) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (level == 2) return avx512;
  if (level == 3) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return false;
}

int choose() {
  if (const char* name = std::getenv("RRSIS_KERNELS_CPU_CAPABILITY"); name && *name) {
    for (int level = 0; level < kLevels; ++level) {
      if (std::strcmp(name, kNames[level]) != 0) continue;
      STD_TORCH_CHECK(supported(level), "RRSIS_KERNELS_CPU_CAPABILITY=", name, ", but this processor does not support it");
      return level;
    }
    STD_TORCH_CHECK(false, "RRSIS_KERNELS_CPU_CAPABILITY=", name, ", but baseline, avx2, avx512 or avx512bf16 was due");
  }
  int level = kBestAutomatic;
  while (!supported(level)) --level;
  return level;
}

std::atomic<int> current{-1};

}  // namespace

int64_t cpu_capability() {
  int level = current.load(std::memory_order_relaxed);
  if (level < 0) {
    level = choose();
    current.store(level, std::memory_order_relaxed);
  }
  return level;
}

int64_t set_cpu_capability(int64_t level) {
  if (level == -1) {
    current.store(-1, std::memory_order_relaxed);
    return cpu_capability();
  }
  if (level < 0 || level >= kLevels || !supported(static_cast<int>(level))) return -1;
  current.store(static_cast<int>(level), std::memory_order_relaxed);
  return level;
}

const KernelTable& kernels(int dtype) {
  switch (cpu_capability()) {
    case 3: return dtype == kBFloat16 ? avx512bf16_kernels() : avx512_kernels();
    case 2: return avx512_kernels();
    case 1: return avx2_kernels();
    default: return baseline_kernels();
  }
}

}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&rrsis_kernels::cpu_capability));
  m.impl("set_cpu_capability", TORCH_BOX(&rrsis_kernels::set_cpu_capability));
}
