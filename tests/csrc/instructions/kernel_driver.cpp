// Runs one kernel of one instruction set on one sample of fixed numbers, without PyTorch and on one thread: small enough to
// count its instructions under callgrind or to look at with a profiler.
//
//   kernel_driver CAPABILITY OPERATOR DTYPE REPEATS SIZE...
//
// CAPABILITY: baseline, avx2. OPERATOR: {bsc,twin,mask_statistics,masked_cosine}_{forward,backward}. DTYPE: float32,
// bfloat16. SIZE: see driver.h. Prints the least milliseconds of a repeat and the sum of all outputs.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "driver.h"

namespace {

int fail(const char* due, const std::string& came) {
  std::fprintf(stderr, "kernel_driver: expected %s, got %s\n", due, came.c_str());
  return 2;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

// What callgrind counts: found by its name.
extern "C" __attribute__((noinline)) void measured(const driver::Problem& problem) { problem.run(); }

int main(int argc, char** argv) {
  if (argc < 7) return fail("CAPABILITY OPERATOR DTYPE REPEATS SIZE...", std::to_string(argc - 1) + " arguments");
  const std::string capability = argv[1], name = argv[2], dtype = argv[3];
  if (capability != "baseline" && capability != "avx2") return fail("baseline or avx2", capability);
  if (dtype != "float32" && dtype != "bfloat16") return fail("float32 or bfloat16", dtype);
  const bool backward = ends_with(name, "_backward");
  if (!backward && !ends_with(name, "_forward")) return fail("an OPERATOR", name);
  const std::string op = name.substr(0, name.rfind('_'));
  const bool cosine = op == "masked_cosine", statistics = op == "mask_statistics", twin = op == "twin";
  if (!cosine && !statistics && !twin && op != "bsc") return fail("an OPERATOR", name);
  std::vector<int64_t> sizes;
  for (int i = 5; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  const size_t due = cosine || statistics ? 2 : 5;
  if (sizes.size() != due) return fail((std::to_string(due) + " sizes").c_str(), std::to_string(sizes.size()));

  const rrsis_kernels::KernelTable& k = capability == "avx2" ? rrsis_kernels::avx2_kernels() : rrsis_kernels::baseline_kernels();
  const int code = dtype == "float32" ? rrsis_kernels::kFloat32 : rrsis_kernels::kBFloat16;
  const driver::Problem problem = cosine       ? driver::masked_cosine(k, backward, code, sizes)
                                  : statistics ? driver::mask_statistics(k, backward, code, sizes)
                                               : driver::token_pixel(k, twin, backward, code, sizes);
  double least = INFINITY;
  for (int i = 0; i < std::atoi(argv[4]); ++i) {
    const auto start = std::chrono::steady_clock::now();
    measured(problem);
    least = std::fmin(least, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%.3f ms, sum %.6g\n", least, problem.sum());
  return 0;
}
