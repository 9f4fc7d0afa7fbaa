// Kernels for bf16 inputs on AVX-512 with BF16: run only after the processor was asked (capability.cpp).
#include "kernels.h"

#if defined(__x86_64__)
// The pragma makes this file right whatever flags it is given.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")
#endif

// The one header beside kernels.h. The compilers' builtins under its two intrinsics differ in name and operands from version
// to version; its functions are always inlined, so that no copy of one is left for the linker to choose.
#include <immintrin.h>

#define RRSIS_VECTOR_BYTES 64
#define RRSIS_PANEL 4
#define RRSIS_BLOCK_ROWS 6
#define RRSIS_BFLOAT16_PAIRS
#define RRSIS_BFLOAT16_INSTRUCTIONS
#include "simd/all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace rrsis_kernels {
const KernelTable& avx512bf16_kernels() { return kTable; }
}  // namespace rrsis_kernels

#else
namespace rrsis_kernels {
const KernelTable& avx512bf16_kernels() { return baseline_kernels(); }  // never chosen: the processor has not got it
}  // namespace rrsis_kernels
#endif
