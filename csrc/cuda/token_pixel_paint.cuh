// Painting: pixel rows of weights times the values of the packed tokens, 64 painted channels at a time.
#pragma once

#include "token_pixel_common.cuh"

namespace rk {

constexpr int kPaintColumns = 64;
constexpr int kPaintThreads = 128;  // four warps of 16 pixels
constexpr int kPaintStages = 3;
constexpr int kPaintValueBytes = kPaintColumns * kPanelBytes;  // as deep as a panel of weights is wide: 8 KiB in any dtype

template <class T>
__device__ __forceinline__ void store_painted(const TokenPixelForward& a, int64_t sample, int64_t n0, int64_t d0, const float (&sums)[8][4]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  const bool pairs = a.D % 2 == 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t n = n0 + row + 8 * half;
    if (n >= a.N) continue;
    T* out = static_cast<T*>(a.painted) + (sample * a.N + n) * a.D;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int64_t d = d0 + 8 * j + 2 * (lane % 4);
      const T x = from_float<T>(sums[j][2 * half]), y = from_float<T>(sums[j][2 * half + 1]);
      if (pairs && d < a.D) {
        *reinterpret_cast<Pair<T>*>(out + d) = {x, y};
      } else {
        if (d < a.D) out[d] = x;
        if (d + 1 < a.D) out[d + 1] = y;
      }
    }
  }
}

// Paints the channels from_column ... to_column of one tile. weights(step, stage) gives the panel of weights of the step's
// tokens; load(step, stage) starts loading it where it has to be loaded. `stages` is where values go, kPaintValueBytes each.
template <class T, class Weights, class Load>
__device__ __forceinline__ void paint_tile(const TokenPixelForward& a, int64_t sample, int64_t n0, int64_t from_column, int64_t to_column,
                                           bool aligned, char* stages, const Weights& weights, const Load& load_weights) {
  constexpr int kDepth = kPanelColumns<T>;
  const int packed = static_cast<int>(a.packed), depths = (packed + kDepth - 1) / kDepth;
  const int chunks = static_cast<int>((to_column - from_column + kPaintColumns - 1) / kPaintColumns);
  float sums[8][4];
  const auto values = [&](int stage) { return Panels<T>{stages + stage * kPaintValueBytes, kDepth}; };
  pipeline<kPaintStages>(
      depths * chunks,
      [&](int step, int stage) {
        const int64_t d0 = from_column + step / depths * kPaintColumns, p0 = static_cast<int64_t>(step % depths) * kDepth;
        load_panels<T>(values(stage), kDepth, kPaintColumns / kDepth, a.D - d0, aligned, a.values.data, [&](int row) {
          const T* v = value_row<T>(a, sample, p0 + row);
          return v ? v + d0 : nullptr;
        });
        load_weights(step % depths, stage);
      },
      [&](int step, int stage) {
        const int depth = step % depths, left = packed - depth * kDepth;
        const int64_t d0 = from_column + step / depths * kPaintColumns;
        if (depth == 0) {
#pragma unroll
          for (int i = 0; i < 32; ++i) sums[i / 4][i % 4] = 0.0f;
        }
        const int used = a.D - d0 < kPaintColumns ? static_cast<int>(a.D - d0 + 7) / 8 : 8;
        warp_product<T, Depth::kAlongRows, Depth::kDownRows>(sums, weights(depth, stage), threadIdx.x / 32 * 16, values(stage), 0,
                                                             left < kDepth ? (left + 15) / 16 * 16 : kDepth, used);
        if (depth == depths - 1) store_painted<T>(a, sample, n0, d0, sums);
      });
}

}  // namespace rk
