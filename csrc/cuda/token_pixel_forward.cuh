// The launches of a token-pixel forward, in their order.
#pragma once

#include "token_pixel_scores.cuh"

namespace rk {

constexpr int64_t kBlocksToFill = 264;  // two for each of an H100's multiprocessors: with fewer, work is cut finer

template <class T>
__global__ void __launch_bounds__(kPaintThreads) paint_kernel(const __grid_constant__ TokenPixelForward a, bool aligned) {
  char* shared = shared_memory();
  char* behind = shared + kPaintStages * kPaintValueBytes;
  const int64_t tile = blockIdx.x % a.tiles, sample = blockIdx.x / a.tiles, d0 = static_cast<int64_t>(blockIdx.y) * kPaintColumns;
  const T* first = static_cast<const T*>(a.paint_weights) + (sample * a.tiles + tile) * kTilePixels * a.packed;
  const auto weights = [&](int, int stage) { return Panels<T>{behind + stage * kScoresPixelBytes, kTilePixels}; };
  paint_tile<T>(a, sample, tile * kTilePixels, d0, d0 + kPaintColumns < a.D ? d0 + kPaintColumns : a.D, aligned, shared, weights,
                [&](int depth, int stage) {
                  const int64_t p0 = static_cast<int64_t>(depth) * kPanelColumns<T>;
                  load_panels<T>(weights(depth, stage), kTilePixels, 1, a.packed - p0, true, a.paint_weights,
                                 [&](int row) { return first + row * a.packed + p0; });
                });
}

inline Visits plan_visits(const TokenPixelForward& a, bool whole) {
  Visits v{};
  v.padded = static_cast<int>(a.padded);
  v.heads = v.padded > kVisitTokens ? 1 : kVisitTokens / v.padded;
  v.parts = (v.padded + kVisitTokens - 1) / kVisitTokens;
  v.passes = v.parts > 1 && a.paint ? 2 : 1;
  // What one block has to do alone: everything, or the visits of one head, whose parts share a maximum.
  const int unit = v.parts * v.passes, units = static_cast<int>(v.parts == 1 ? (a.H + v.heads - 1) / v.heads : a.H);
  v.count = units * unit;
  const int64_t tiles = a.B * a.tiles, cuts = (kBlocksToFill + tiles - 1) / tiles;
  const int64_t per_block = whole ? units : (units + cuts - 1) / cuts;
  v.per_block = static_cast<int>(per_block) * unit;
  return v;
}

template <class T, bool kPaint, bool kPool, bool kTwin>
cudaError_t launch_forward(const TokenPixelForward& a, cudaStream_t stream) {
  const bool paints = kPaint && rrsis_kernels::paints_from_shared_memory(a);
  const Visits visits = plan_visits(a, paints);
  bool keys = rows_aligned(a.keys[0], sizeof(T));
  if constexpr (kTwin) keys = keys && rows_aligned(a.keys[1], sizeof(T));
  const Alignment aligned{rows_aligned(a.pixels, sizeof(T)), keys, kPaint && rows_aligned(a.values, sizeof(T))};
  const unsigned tiles = static_cast<unsigned>(a.B * a.tiles);
  const dim3 grid(tiles, static_cast<unsigned>((visits.count + visits.per_block - 1) / visits.per_block));
  cudaError_t error = launch(scores_kernel<T, kPaint, kPool, kTwin>, grid, dim3(kScoresThreads), scores_shared_bytes(a, sizeof(T), paints),
                             stream, a, visits, aligned, paints);
  if (error != cudaSuccess) return error;
  if constexpr (kPaint) {
    if (!paints && a.D > 0) {
      const size_t bytes = kPaintStages * (kPaintValueBytes + kScoresPixelBytes);
      const dim3 columns(tiles, static_cast<unsigned>((a.D + kPaintColumns - 1) / kPaintColumns));
      error = launch(paint_kernel<T>, columns, dim3(kPaintThreads), bytes, stream, a, aligned.values);
      if (error != cudaSuccess) return error;
    }
  }
  if constexpr (kPool) return rrsis_kernels::pool_tokens(a, stream);
  return cudaSuccess;
}

}  // namespace rk
