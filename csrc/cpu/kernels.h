// What the operator files (built once) and the instruction-set files (built once per set) say to each other: plain
// structs and one table of function pointers per set. Nothing here may bring in standard-library functions: an inline
// function compiled for AVX2 could be the copy that the linker keeps for a machine without it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../common/token_pixel_views.h"

namespace rrsis_kernels {

constexpr int64_t kMostChunks = 32;

// Both token-pixel operators.
struct TokenPixelArgs : TokenPixelViews {
  int64_t chunks;   // pixel chunks per sample: a function of the shape alone
  int paint, pool;  // backward: which directions send a gradient

  // Forward outputs, all contiguous.
  void* painted;       // (B, N, D)
  void* pixel_lse;     // (B, H, N), float (double for double input)
  void* pooled[2];     // (B, bank_heads, L, C)
  void* pool_stats;    // (B, H, L, 2), float (double); read by the backward

  // Backward inputs and outputs (outputs contiguous).
  RowView grad_painted;
  TokenView grad_pooled[2];
  TokenView pooled_view[2];
  TokenView grad_lse;  // (B, H, N): `row` is unused
  void* grad_pixels;
  void* grad_keys[2];
  void* grad_values;
  void* grad_key_bias;
  void* grad_gate;
};

// Bytes of the three kinds of working memory of a token-pixel pass.
struct WorkSizes {
  size_t sample;   // packed operands of one sample
  size_t partial;  // accumulators of one (sample, chunk)
  size_t thread;   // tile buffers of one thread
};

struct WorkMemory {
  char* samples;   // `sample` bytes apart
  char* partials;  // `partial` bytes apart, chunks of a sample adjacent
  char* thread;
};

struct MaskStatisticsArgs {
  int64_t B, h, w, Hm, Wm;
  int64_t bands;        // row bands per sample: a function of the shape alone
  int dtype, mask_dtype;
  double joint_scale;
  RowView target, background;  // (B, h, w)
  RowView mask, valid;         // (B, Hm, Wm)
  // Interpolation tables, computed as F.interpolate does: x_lo/x_hi (Wm), y_lo/y_hi (Hm), and the weight of the hi one.
  const int32_t *x_lo, *x_hi, *y_lo, *y_hi;
  const void *x_weight, *y_weight;  // float (double)
  const int32_t* x_first;           // (w + 1): first output column whose lo index is at least x'
  double* band_sums;                // (B, bands, 9), forward
  RowView grad_sums;                // (B, 9), float (double), backward
  void* band_grads;                 // backward: two low-resolution buffers per band
  int64_t band_grad_rows;           // rows of one of those buffers
};

struct MaskedCosineArgs {
  int64_t B, N, C, chunks;
  int dtype;
  RowView prediction, target, mask;
  double* chunk_sums;       // (B, chunks, 2): sum of 1 - cos, rows
  const double* row_scale;  // (B): gradient of one row's 1 - cos, backward
  void *grad_prediction, *grad_target;
};

struct KernelTable {
  WorkSizes (*forward_sizes)(const TokenPixelArgs&);
  void (*forward_prepare)(const TokenPixelArgs&, int64_t sample, const WorkMemory&);
  void (*forward_chunk)(const TokenPixelArgs&, int64_t sample, int64_t chunk, const WorkMemory&);
  void (*forward_finish)(const TokenPixelArgs&, int64_t sample, const WorkMemory&);
  WorkSizes (*backward_sizes)(const TokenPixelArgs&);
  void (*backward_prepare)(const TokenPixelArgs&, int64_t sample, const WorkMemory&);
  void (*backward_chunk)(const TokenPixelArgs&, int64_t sample, int64_t chunk, const WorkMemory&);
  void (*backward_finish)(const TokenPixelArgs&, int64_t sample, const WorkMemory&);
  size_t (*mask_statistics_thread_bytes)(const MaskStatisticsArgs&);
  void (*mask_statistics_forward)(const MaskStatisticsArgs&, int64_t sample, int64_t band, char* thread);
  void (*mask_statistics_backward)(const MaskStatisticsArgs&, int64_t sample, int64_t band, char* thread);
  void (*masked_cosine_forward)(const MaskedCosineArgs&, int64_t sample, int64_t chunk);
  void (*masked_cosine_backward)(const MaskedCosineArgs&, int64_t sample, int64_t chunk);
};

const KernelTable& baseline_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512bf16_kernels();  // for bf16 inputs alone

}  // namespace rrsis_kernels
