// The two steps on bf16 of simd/bfloat16.h, each on one vector: the instructions with RRSIS_BFLOAT16_INSTRUCTIONS, and what is
// written out in their place without.
#include "kernels.h"

#ifdef RRSIS_BFLOAT16_INSTRUCTIONS
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")
#include <immintrin.h>
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define RRSIS_VECTOR_BYTES 64
#define RRSIS_PANEL 4
#define RRSIS_BLOCK_ROWS 6
#define RRSIS_BFLOAT16_PAIRS
#include "simd/all.h"

extern "C" __attribute__((visibility("default"))) void dot(float* sum, const float* x, const float* y) {
  using namespace rrsis_kernels;
  store<float>(sum, dot_pairs(load<float>(sum), load<float>(x), load<float>(y)));
}
extern "C" __attribute__((visibility("default"))) void narrow_two(float* out, const float* x, const float* y) {
  using namespace rrsis_kernels;
  store_halves(out, narrow(load<float>(x), load<float>(y)));
}
