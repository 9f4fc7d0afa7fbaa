// What the token-pixel kernels are told, and the working memory that they need. No torch, no CUDA code.
//
// Both operators are one computation: scores of packed tokens and pixels, a softmax over each head's tokens that paints and
// one over the pixels that pools. Tokens come in one bank (spatial correlation) or two (twin stream); heads of all banks
// follow each other, each padded to a granule of 8 tokens (`padded`), since that is a tensor core's width.
//
// Bytes that must move: pixels and tokens once, outputs once. Bytes that do, with R = heads x padded and e bytes an element:
// pixels twice (scores, pool), R e per pixel out and in again for the pool's weights, and the same for the paint's where
// they do not fit beside the scores in shared memory. docs/kernels.md has the figures.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/token_pixel_views.h"

namespace rrsis_kernels {

constexpr int kTilePixels = 64;
constexpr int kGranule = 8;
constexpr int kMostSplits = 32;
constexpr int64_t kScoresBytes = 88 * 1024;  // of shared memory that the scores kernel takes besides the paint's weights

struct TokenPixelForward : TokenPixelViews {
  int64_t padded, packed, tiles;  // see `derive`
  int64_t shared_limit;           // bytes of shared memory that a block may ask the device for
  bool paint, pool;

  // Outputs, contiguous.
  void* painted;      // (B, N, D)
  float* pixel_lse;   // (B, H, N)
  void* pooled[2];    // (B, bank_heads, L, C)
  float* pool_stats;  // (B, H, L, 2): a shift and the sum of exp(score - shift)

  // Working memory: see `workspace`.
  void* pool_weights;
  void* paint_weights;
  float* tile_stats;
  float* split_stats;
  float* split_sums;
};

// Sets what follows from the sizes: tokens of a head with its filling, of all heads, and tiles of pixels.
void derive(TokenPixelForward& a);

// What of a call no grid has room for; null where all fits. Sizes are set.
const char* too_large(const TokenPixelForward& a);

// Bytes of each piece of working memory, in the order of the struct; 0 for what a call does without.
struct TokenPixelWorkspace {
  size_t pool_weights, paint_weights, tile_stats, split_stats, split_sums;
};

TokenPixelWorkspace token_pixel_workspace(const TokenPixelForward& a);

// How many parts the pixels are pooled in: a function of the shape alone, so that sums are the same on all devices.
int64_t pool_splits(const TokenPixelForward& a);

// Whether painting keeps its weights in shared memory instead of in `paint_weights`. The result is the same.
bool paints_from_shared_memory(const TokenPixelForward& a);

}  // namespace rrsis_kernels
