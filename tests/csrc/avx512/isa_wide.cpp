// The AVX-512 kernels with nothing of AVX-512 but their shapes: 16 lanes, panels of four vectors. Compiled for AVX2, where
// the compiler makes each vector of 64 bytes from two of 32, so that a machine without AVX-512 executes the code that only
// 16 lanes have: transpositions, panels of three and four, tails. The instructions are other ones than in isa_avx512.cpp.
#include "kernels.h"

#pragma GCC target("avx2,fma,f16c")

#define RRSIS_VECTOR_BYTES 64
#define RRSIS_PANEL 4
#define RRSIS_BLOCK_ROWS 6
#include "simd/all.h"

extern "C" __attribute__((visibility("default"))) const void* avx512_table() { return &rrsis_kernels::kTable; }
