// Sizes of the token-pixel kernels' working memory.
#include "token_pixel.h"

#include <algorithm>

namespace rrsis_kernels {
namespace {

constexpr int64_t kPoolBlocks = 264;         // two for each of an H100's multiprocessors
constexpr int64_t kWeightsBytes = 64 * 1024;  // of those at most: with more a multiprocessor would hold a single block

int64_t item_bytes(const TokenPixelForward& a) { return a.dtype == kFloat32 ? 4 : 2; }

}  // namespace

void derive(TokenPixelForward& a) {
  a.padded = (a.L + kGranule - 1) / kGranule * kGranule;
  a.packed = a.H * a.padded;
  a.tiles = (a.N + kTilePixels - 1) / kTilePixels;
}

const char* too_large(const TokenPixelForward& a) {
  constexpr int64_t kMostBlocks = (int64_t(1) << 31) - 1, kMostColumnBlocks = (int64_t(1) << 16) - 1;
  if (a.B * a.tiles > kMostBlocks) return "pixels";
  if (a.B * a.packed > kMostBlocks) return "tokens";
  if (a.C > 64 * kMostColumnBlocks || a.D > 64 * kMostColumnBlocks) return "channels";
  return nullptr;
}

int64_t pool_splits(const TokenPixelForward& a) {
  const int64_t blocks = a.B * ((a.packed + 127) / 128) * ((a.C + 127) / 128);
  const int64_t wanted = blocks > 0 ? (kPoolBlocks + blocks - 1) / blocks : 1;
  return std::clamp<int64_t>(wanted, 1, std::clamp<int64_t>(a.tiles, 1, kMostSplits));
}

bool paints_from_shared_memory(const TokenPixelForward& a) {
  const int64_t row = (a.packed * item_bytes(a) + 127) / 128 * 128;
  return a.L <= 128 && kTilePixels * row <= std::min(kWeightsBytes, a.shared_limit - kScoresBytes);
}

TokenPixelWorkspace token_pixel_workspace(const TokenPixelForward& a) {
  const size_t weights = a.B * a.tiles * kTilePixels * a.packed * item_bytes(a);
  TokenPixelWorkspace w{};
  if (a.paint && !paints_from_shared_memory(a)) w.paint_weights = weights;
  if (!a.pool) return w;
  const size_t splits = a.B * pool_splits(a) * a.packed;
  w.pool_weights = weights;
  w.tile_stats = a.B * a.tiles * a.packed * 2 * sizeof(float);
  w.split_stats = splits * 2 * sizeof(float);
  w.split_sums = splits * a.C * sizeof(float);
  return w;
}

}  // namespace rrsis_kernels
