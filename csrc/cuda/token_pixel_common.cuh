// What the token-pixel kernels share: where packed tokens and pixels lie, and the arithmetic of their softmaxes.
#pragma once

#include <cmath>

#include "panels.cuh"
#include "token_pixel.h"

namespace rrsis_kernels {

// Pools with the weights and statistics that the scores kernel of the same stream leaves (token_pixel_pool.cu).
cudaError_t pool_tokens(const TokenPixelForward& a, cudaStream_t stream);

}  // namespace rrsis_kernels

namespace rk {

using rrsis_kernels::kGranule;
using rrsis_kernels::kTilePixels;
using rrsis_kernels::RowView;
using rrsis_kernels::TokenPixelForward;
using rrsis_kernels::TokenView;

constexpr float kLowest = -INFINITY;

// exp in the accuracy that the dtype can show.
template <class T>
__device__ __forceinline__ float exponential(float x) {
#ifndef RRSIS_CUDA_EMULATION
  if constexpr (sizeof(T) == 2) return __expf(x);
#endif
  return expf(x);
}

// What exponents are measured from: the maximum, or 0 where nothing is there to measure.
__device__ __forceinline__ float shift_of(float maximum) { return maximum == kLowest ? 0.0f : maximum; }

__device__ __forceinline__ float log_sigmoid(float x) { return fminf(x, 0.0f) - log1pf(expf(-fabsf(x))); }

__device__ __forceinline__ float load_float(const void* data, int dtype, int64_t i) {
  switch (dtype) {
    case rrsis_kernels::kBFloat16: return to_float(static_cast<const __nv_bfloat16*>(data)[i]);
    case rrsis_kernels::kFloat16: return to_float(static_cast<const __half*>(data)[i]);
    default: return static_cast<const float*>(data)[i];
  }
}

__device__ __forceinline__ bool is_real(const RowView& mask, int64_t sample, int64_t i) {
  return mask.data == nullptr || static_cast<const uint8_t*>(mask.data)[sample * mask.batch + i] != 0;
}

// The row of one token, null for a token that only fills its head's granule.
template <class T>
__device__ __forceinline__ const T* token_row(const TokenView& view, int64_t L, int64_t sample, int64_t head, int64_t l) {
  return l < L ? static_cast<const T*>(view.data) + sample * view.batch + head * view.head + l * view.row : nullptr;
}

// The row of packed token p of the values.
template <class T>
__device__ __forceinline__ const T* value_row(const TokenPixelForward& a, int64_t sample, int64_t p) {
  const int64_t padded = a.padded;
  return p < a.packed ? token_row<T>(a.values, a.L, sample, p / padded, p % padded) : nullptr;
}

template <class T>
__device__ __forceinline__ const T* pixel_row(const TokenPixelForward& a, int64_t sample, int64_t n) {
  return n < a.N ? static_cast<const T*>(a.pixels.data) + sample * a.pixels.batch + n * a.pixels.row : nullptr;
}

// Whether every row of a view can be read in 16-byte pieces.
inline bool rows_aligned(const void* data, int item_bytes, std::initializer_list<int64_t> strides) {
  bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  for (int64_t stride : strides) aligned = aligned && stride * item_bytes % 16 == 0;
  return aligned;
}
inline bool rows_aligned(const TokenView& v, int item_bytes) { return rows_aligned(v.data, item_bytes, {v.batch, v.head, v.row}); }
inline bool rows_aligned(const RowView& v, int item_bytes) { return rows_aligned(v.data, item_bytes, {v.batch, v.row}); }

}  // namespace rk
