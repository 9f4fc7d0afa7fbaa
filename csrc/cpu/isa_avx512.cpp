// Kernels for AVX512 with FMA: run only after the processor was asked (capability.cpp).
#include "kernels.h"

#if defined(__x86_64__)
// The pragma makes this file right whatever flags it is given.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")
#endif

#define RRSIS_VECTOR_BYTES 64
#define RRSIS_PANEL 4
#define RRSIS_BLOCK_ROWS 6
#include "simd/all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace rrsis_kernels {
const KernelTable& avx512_kernels() { return kTable; }
}  // namespace rrsis_kernels

#else
namespace rrsis_kernels {
const KernelTable& avx512_kernels() { return baseline_kernels(); }  // never chosen: the processor has not got it
}  // namespace rrsis_kernels
#endif
