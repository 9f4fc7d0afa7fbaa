// The kernels of isa_avx512bf16.cpp, as isa_wide.cpp has those of isa_avx512.cpp: compiled for AVX2, with the instructions on
// bf16 written out (simd/bfloat16.h).
#include "kernels.h"

#pragma GCC target("avx2,fma,f16c")

#define RRSIS_VECTOR_BYTES 64
#define RRSIS_PANEL 4
#define RRSIS_BLOCK_ROWS 6
#define RRSIS_BFLOAT16_PAIRS
#include "simd/all.h"

extern "C" __attribute__((visibility("default"))) const void* avx512bf16_table() { return &rrsis_kernels::kTable; }
