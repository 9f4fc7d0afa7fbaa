// Pooling: what each token gathers from the pixels, from the weights that the scores kernel left.
//
// One block takes 128 packed tokens, 128 channels and one part of the pixels, tile after tile; a tile's product is scaled
// by exp(its maximum - the part's maximum) on the way into the sums. A second kernel adds the parts up in their order.
#include "token_pixel_common.cuh"

namespace rk {

constexpr int kPoolTokens = 128;
constexpr int kPoolThreads = 256;  // eight warps: four groups of 32 tokens by two halves of the channels

// Channels of a block. Its memory fits in the 99 KiB of the smallest devices in any dtype.
template <class T>
constexpr int kPoolColumns = sizeof(T) == 2 ? 128 : 64;

template <class T>
constexpr int kPoolStages = sizeof(T) == 2 ? 3 : 2;
template <class T>
constexpr int kPoolWeightBytes = kTilePixels * kPoolTokens * static_cast<int>(sizeof(T));
template <class T>
constexpr int kPoolStageBytes = kPoolWeightBytes<T> + kTilePixels * kPoolColumns<T> * static_cast<int>(sizeof(T));

template <class T>
struct PoolMemory {
  float scale[kPoolStages<T>][kPoolTokens];
  float maximum[kPoolTokens];
};

template <class T>
constexpr size_t kPoolSharedBytes = kPoolStages<T> * kPoolStageBytes<T> + sizeof(PoolMemory<T>);

// The maximum and the sum of one token over the tiles of a part, that is thread t's of token p0 + t.
__device__ __forceinline__ Pair<float> part_stats(const TokenPixelForward& a, int64_t sample, int64_t p, int64_t begin, int64_t end) {
  const auto stats = [&](int64_t tile) {
    return reinterpret_cast<const Pair<float>*>(a.tile_stats)[(sample * a.tiles + tile) * a.packed + p];
  };
  float top = kLowest, sum = 0.0f;
  for (int64_t tile = begin; tile < end; ++tile) top = fmaxf(top, stats(tile).x);
  for (int64_t tile = begin; tile < end; ++tile) {
    const Pair<float> s = stats(tile);
    sum += s.y * expf(s.x - shift_of(top));
  }
  return {top, sum};
}

template <class T>
__global__ void __launch_bounds__(kPoolThreads) pool_kernel(const __grid_constant__ TokenPixelForward a, int splits, bool aligned) {
  constexpr int kTiles = kPoolColumns<T> / 16;
  char* shared = shared_memory();
  PoolMemory<T>& memory = *reinterpret_cast<PoolMemory<T>*>(shared + kPoolStages<T> * kPoolStageBytes<T>);
  const int64_t packed = a.packed, tiles = a.tiles;
  const int64_t blocks = (packed + kPoolTokens - 1) / kPoolTokens;
  const int split = blockIdx.x % splits;
  const int64_t p0 = blockIdx.x / splits % blocks * kPoolTokens, sample = blockIdx.x / splits / blocks;
  const int64_t c0 = static_cast<int64_t>(blockIdx.y) * kPoolColumns<T>;
  const int64_t begin = tiles * split / splits, end = tiles * (split + 1) / splits;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, m0 = warp / 2 * 32, n0 = warp % 2 * kPoolColumns<T> / 2;
  const int64_t output = (sample * splits + split) * packed + p0;

  if (threadIdx.x < kPoolTokens) {
    const bool there = p0 + threadIdx.x < packed;
    const Pair<float> stats = there ? part_stats(a, sample, p0 + threadIdx.x, begin, end) : Pair<float>{kLowest, 0.0f};
    memory.maximum[threadIdx.x] = stats.x;  // read by this thread alone
    if (there && blockIdx.y == 0) reinterpret_cast<Pair<float>*>(a.split_stats)[output + threadIdx.x] = stats;
  }

  const auto weights = [&](int stage) { return Panels<T>{shared + stage * kPoolStageBytes<T>, kTilePixels}; };
  const auto pixels = [&](int stage) { return Panels<T>{weights(stage).base + kPoolWeightBytes<T>, kTilePixels}; };
  float sums[2][kTiles][4];
#pragma unroll
  for (int i = 0; i < 8 * kTiles; ++i) sums[i / 4 / kTiles][i / 4 % kTiles][i % 4] = 0.0f;
  pipeline<kPoolStages<T>>(
      static_cast<int>(end - begin),
      [&](int step, int stage) {
        const int64_t tile = begin + step;
        const T* first = static_cast<const T*>(a.pool_weights) + (sample * tiles + tile) * kTilePixels * packed + p0;
        load_panels<T>(weights(stage), kTilePixels, kPoolTokens / kPanelColumns<T>, packed - p0, true, a.pool_weights,
                       [&](int row) { return first + row * packed; });
        load_panels<T>(pixels(stage), kTilePixels, kPoolColumns<T> / kPanelColumns<T>, a.C - c0, aligned, a.pixels.data, [&](int row) {
          const T* x = pixel_row<T>(a, sample, tile * kTilePixels + row);
          return x ? x + c0 : nullptr;
        });
        if (threadIdx.x < kPoolTokens) {
          const bool there = p0 + threadIdx.x < packed;
          const float top = there ? a.tile_stats[((sample * tiles + tile) * packed + p0 + threadIdx.x) * 2] : kLowest;
          memory.scale[stage][threadIdx.x] = expf(top - shift_of(memory.maximum[threadIdx.x]));
        }
      },
      [&](int, int stage) {
        const int64_t left = a.C - c0 - n0;
        const int used = left < 8 * kTiles ? static_cast<int>(left + 7) / 8 : kTiles;
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          if (p0 + m0 + m * 16 >= packed || left <= 0) continue;
          float product[kTiles][4] = {};
          warp_product<T, Depth::kDownRows, Depth::kDownRows>(product, weights(stage), m0 + m * 16, pixels(stage), n0, kTilePixels, used);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float scale = memory.scale[stage][m0 + m * 16 + lane / 4 + i / 2 * 8];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) sums[m][j][i] += scale * product[j][i];
          }
        }
      });
#pragma unroll
  for (int i = 0; i < 8 * kTiles; ++i) {
    const int m = i / 4 / kTiles, j = i / 4 % kTiles, token = m0 + m * 16 + lane / 4 + i % 4 / 2 * 8;
    const int64_t column = c0 + n0 + j * 8 + lane % 4 * 2 + i % 2;
    if (p0 + token < packed && column < a.C) a.split_sums[(output + token) * a.C + column] = sums[m][j][i % 4];
  }
}

constexpr int kCombineThreads = 128;

// Adds up the parts of one token; one without any real pixel gets zeros, and a total of 0.
template <class T>
__global__ void __launch_bounds__(kCombineThreads) combine_kernel(const __grid_constant__ TokenPixelForward a, int splits) {
  const int64_t l = blockIdx.x % a.L, head = blockIdx.x / a.L % a.H, sample = blockIdx.x / a.L / a.H;
  const int64_t packed = a.packed, first = sample * splits * packed + head * a.padded + l;
  const auto stats = [&](int split) { return reinterpret_cast<const Pair<float>*>(a.split_stats)[first + split * packed]; };
  float top = kLowest, total = 0.0f;
  for (int i = 0; i < splits; ++i) top = fmaxf(top, stats(i).x);
  const float shift = shift_of(top);
  for (int i = 0; i < splits; ++i) total += stats(i).y * expf(stats(i).x - shift);
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  T* out = static_cast<T*>(a.pooled[head / a.bank_heads]) + ((sample * a.bank_heads + head % a.bank_heads) * a.L + l) * a.C;
  for (int64_t c = threadIdx.x; c < a.C; c += kCombineThreads) {
    float sum = 0.0f;
    for (int i = 0; i < splits; ++i) sum += expf(stats(i).x - shift) * a.split_sums[(first + i * packed) * a.C + c];
    out[c] = from_float<T>(sum * inverse);
  }
  if (threadIdx.x == 0) reinterpret_cast<Pair<float>*>(a.pool_stats)[(sample * a.H + head) * a.L + l] = {shift, total};
}

template <class T>
cudaError_t launch_pool(const TokenPixelForward& a, cudaStream_t stream) {
  const int64_t blocks = (a.packed + kPoolTokens - 1) / kPoolTokens, splits = rrsis_kernels::pool_splits(a);
  const dim3 grid(static_cast<unsigned>(a.B * blocks * splits), static_cast<unsigned>(a.C > 0 ? (a.C + kPoolColumns<T> - 1) / kPoolColumns<T> : 1));
  const bool aligned = rows_aligned(a.pixels, sizeof(T));
  const cudaError_t error = launch(pool_kernel<T>, grid, dim3(kPoolThreads), kPoolSharedBytes<T>, stream, a, static_cast<int>(splits), aligned);
  if (error != cudaSuccess) return error;
  return launch(combine_kernel<T>, dim3(static_cast<unsigned>(a.B * a.H * a.L)), dim3(kCombineThreads), 0, stream, a, static_cast<int>(splits));
}

}  // namespace rk

namespace rrsis_kernels {

cudaError_t pool_tokens(const TokenPixelForward& a, cudaStream_t stream) {
  switch (a.dtype) {
    case kFloat32: return rk::launch_pool<float>(a, stream);
    case kBFloat16: return rk::launch_pool<__nv_bfloat16>(a, stream);
    case kFloat16: return rk::launch_pool<__half>(a, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace rrsis_kernels
