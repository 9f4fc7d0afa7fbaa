// Scores of one tile of pixels with all tokens, and both softmaxes of them, as far as a tile can tell.
//
// A block takes 64 pixels and visits the packed tokens 128 at a time: whole heads, or the parts of one long head. The
// pool's weights go out as exp(score - maximum over the tile) with that maximum and their sum: other tiles may hold larger
// ones (token_pixel_pool.cu). The paint's are complete, since a pixel's tokens are all here; where all of them fit in shared
// memory the block paints with them itself. The scores of a long head that paints are computed twice: once for the
// maximum and sum of each pixel, once for the weights.
#pragma once

#include "token_pixel_paint.cuh"

namespace rk {

constexpr int kVisitTokens = 128;
constexpr int kScoresThreads = 128;  // four warps of 16 pixels; in the epilogue one thread a token
constexpr int kScoresBlocks = 2;     // on a multiprocessor: what shared memory lets in, so registers need not be saved
constexpr int kScoresStages = 3;
constexpr int kMostHeads = kVisitTokens / kGranule;
constexpr int kColumnTiles = kVisitTokens / 8;
constexpr int kScoresPixelBytes = kTilePixels * kPanelBytes;
constexpr int kScoresStageBytes = kScoresPixelBytes + kVisitTokens * kPanelBytes;
static_assert(kScoresStages * kScoresStageBytes >= kPaintStages * kPaintValueBytes);

// How the packed tokens are visited.
struct Visits {
  int padded;          // tokens of a head with its filling
  int heads;           // heads of a visit
  int parts;           // visits that a head takes, more than one only where heads is 1
  int passes;          // over the parts of a head
  int count;           // visits of all heads
  int per_block;       // visits of one block
};

struct Visit {
  int head, first_token, packed, tokens;  // first head, first token in it, its packed number, and tokens with filling
  bool measures, weighs;                  // whether it takes part in the maximum and sum of pixels, and whether it yields weights
};

__device__ __forceinline__ Visit visit_at(const TokenPixelForward& a, const Visits& v, int index) {
  Visit visit;
  if (v.parts == 1) {
    visit.head = index * v.heads;
    visit.first_token = 0;
    const int heads = static_cast<int>(a.H) - visit.head;
    visit.tokens = (heads < v.heads ? heads : v.heads) * v.padded;
    visit.measures = visit.weighs = true;
  } else {
    const int within = index % (v.parts * v.passes);
    visit.head = index / (v.parts * v.passes);
    visit.first_token = within % v.parts * kVisitTokens;
    const int left = v.padded - visit.first_token;
    visit.tokens = left < kVisitTokens ? left : kVisitTokens;
    visit.measures = v.passes == 2 && within < v.parts;
    visit.weighs = !visit.measures;
  }
  visit.packed = visit.head * v.padded + visit.first_token;
  return visit;
}

struct ScoresMemory {
  float bias[kVisitTokens];
  float closed[kVisitTokens];  // 0 for a real token, else -inf
  float columns[2][4][kVisitTokens];
  float column_shift[kVisitTokens];
  float row_maximum[kMostHeads][kTilePixels];
  float row_sum[kMostHeads][kTilePixels];
  float gate[2][kTilePixels];
  float open[kTilePixels];  // 1 for a real pixel
};

static_assert(kScoresStages * kScoresStageBytes + sizeof(ScoresMemory) <= rrsis_kernels::kScoresBytes);

inline size_t scores_shared_bytes(const TokenPixelForward& a, int item_bytes, bool paints) {
  const size_t columns = kPanelBytes / item_bytes, panels = (a.packed + columns - 1) / columns;
  return kScoresStages * kScoresStageBytes + sizeof(ScoresMemory) + (paints ? panels * kTilePixels * kPanelBytes : 0);
}

struct Maximum {
  __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); }
};
struct Sum {
  __device__ __forceinline__ float operator()(float x, float y) const { return x + y; }
};

// One step of `reduce_over_rows`: the lanes that differ in bit kBit swap halves of 2 kBit values.
template <int kBit, class Operation>
__device__ __forceinline__ void halve(float (&values)[32], Operation operation) {
  const bool upper = threadIdx.x & kBit;
#pragma unroll
  for (int i = 0; i < kBit; ++i) {
    const float sent = upper ? values[i] : values[i + kBit], kept = upper ? values[i + kBit] : values[i];
    values[i] = operation(kept, __shfl_xor_sync(0xffffffffu, sent, kBit));
  }
}

// Reduces 32 values a lane over the eight lanes with the same lane % 4; each lane ends with four of the sums, those from
// `first_of_lane` on. Swapping halves takes 28 shuffles instead of 96.
template <class Operation>
__device__ __forceinline__ void reduce_over_rows(float (&values)[32], Operation operation) {
  halve<16>(values, operation);
  halve<8>(values, operation);
  halve<4>(values, operation);
}
__device__ __forceinline__ int first_of_lane() { return (threadIdx.x & 16) + (threadIdx.x & 8) + (threadIdx.x & 4); }

// Column of value i of a lane, where value 2 j + c is column 8 j + 2 (lane % 4) + c.
__device__ __forceinline__ int column_of(int i) { return i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2; }

template <class Operation>
__device__ __forceinline__ float quad_reduce(float x, Operation operation) {
  x = operation(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return operation(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// One block's work; a lane's scores lie as `multiply` says.
template <class T, bool kPaint, bool kPool, bool kTwin>
struct ScoresTile {
  const TokenPixelForward& a;
  const Visits& visits;
  ScoresMemory& memory;
  Panels<T> weights;  // of the paint, all packed tokens; no base where they go to `paint_weights`
  int64_t sample, tile;
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;  // and row + 8
  float scores[kColumnTiles][4];

  __device__ __forceinline__ void prepare() {
    for (int i = threadIdx.x; i < kTilePixels; i += kScoresThreads) {
      const int64_t n = tile * kTilePixels + i;
      memory.open[i] = n < a.N && is_real(a.pixel_mask, sample, n);
      if constexpr (kTwin) {
        const bool gated = n < a.N && a.gate.data != nullptr;
        const float gate = gated ? load_float(a.gate.data, a.gate_dtype, sample * a.gate.batch + n) : 0.0f;
        memory.gate[0][i] = gated ? log_sigmoid(gate) : 0.0f;
        memory.gate[1][i] = gated ? log_sigmoid(-gate) : 0.0f;
      }
    }
    if constexpr (kPaint) {
      if (weights.base == nullptr) return;
      const int panels = (static_cast<int>(a.packed) + kPanelColumns<T> - 1) / kPanelColumns<T>;
      for (int i = threadIdx.x; i < panels * kTilePixels * 8; i += kScoresThreads)
        reinterpret_cast<float4*>(weights.base)[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  // Runs f(j, segment) for every column tile of a visit, where a segment is a head, and end(segment) behind each.
  template <class Function, class End>
  __device__ __forceinline__ void over_heads(const Visit& visit, const Function& f, const End& end) {
    const int width = visits.parts == 1 ? visits.padded / 8 : kColumnTiles;
    int segment = 0, next = width;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      if (j * 8 >= visit.tokens) continue;
      if (j == next) {
        end(segment++);
        next += width;
      }
      f(j, segment);
    }
    end(segment);
  }

  __device__ __forceinline__ void finish(const Visit& visit) {
    const int t = threadIdx.x;
    if (t < visit.tokens) {
      const int64_t head = visit.head + t / visits.padded, l = visit.first_token + t % visits.padded;
      const bool there = l < a.L;
      memory.bias[t] = there && a.key_bias.data
                           ? load_float(a.key_bias.data, a.dtype, sample * a.key_bias.batch + head * a.key_bias.head + l * a.key_bias.row)
                           : 0.0f;
      memory.closed[t] = there && is_real(a.token_mask, sample, l) ? 0.0f : kLowest;
    }
    __syncthreads();
    add_biases(visit);
    if constexpr (kPool) {
      if (visit.weighs) pool(visit);
    }
    if constexpr (kPaint) {
      if (visit.measures) measure(visit);
      if (visit.weighs) weigh(visit);
    }
  }

  __device__ __forceinline__ void add_biases(const Visit& visit) {
    over_heads(
        visit,
        [&](int j, int segment) {
          const int bank = kTwin && visit.head + segment >= a.bank_heads;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            scores[j][i] += memory.bias[column_of(2 * j + i % 2)];
            if constexpr (kTwin) scores[j][i] += memory.gate[bank][row + i / 2 * 8];
          }
        },
        [](int) {});
  }

  // The pool's weights of this tile, relative to the tile's maximum of each token.
  __device__ __forceinline__ void pool(const Visit& visit) {
    const bool open[2] = {memory.open[row] != 0, memory.open[row + 8] != 0};
    const int warp = threadIdx.x / 32, token = threadIdx.x;
    float values[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const float upper = open[0] ? scores[i / 2][i % 2] : kLowest, lower = open[1] ? scores[i / 2][2 + i % 2] : kLowest;
      values[i] = fmaxf(upper, lower);
    }
    const float maximum = over_block(values, 0, warp, Maximum());
    memory.column_shift[token] = shift_of(maximum);
    __syncthreads();
    T* out = static_cast<T*>(a.pool_weights) + ((sample * a.tiles + tile) * kTilePixels + row) * a.packed + visit.packed;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      Pair<T> pair[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float x = scores[j][2 * half] - memory.column_shift[column_of(2 * j)];
        const float y = scores[j][2 * half + 1] - memory.column_shift[column_of(2 * j + 1)];
        pair[half] = {from_float<T>(open[half] ? exponential<T>(x) : 0.0f), from_float<T>(open[half] ? exponential<T>(y) : 0.0f)};
        if (j * 8 < visit.tokens) *reinterpret_cast<Pair<T>*>(out + half * 8 * a.packed + column_of(2 * j)) = pair[half];
      }
      // The products read rounded weights, so their sum has to be that of the rounded ones.
      values[2 * j] = to_float(pair[0].x) + to_float(pair[1].x);
      values[2 * j + 1] = to_float(pair[0].y) + to_float(pair[1].y);
    }
    const float sum = over_block(values, 1, warp, Sum());
    if (token < visit.tokens) {
      float* stats = a.tile_stats + ((sample * a.tiles + tile) * a.packed + visit.packed + token) * 2;
      *reinterpret_cast<Pair<float>*>(stats) = {maximum, sum};
    }
  }

  // Reduces a lane's 32 columns over all pixels of the tile; thread t gets column t.
  template <class Operation>
  __device__ __forceinline__ float over_block(float (&values)[32], int which, int warp, Operation operation) {
    reduce_over_rows(values, operation);
#pragma unroll
    for (int i = 0; i < 4; ++i) memory.columns[which][warp][column_of(first_of_lane() + i)] = values[i];
    __syncthreads();
    const auto column = [&](int w) { return memory.columns[which][w][threadIdx.x]; };
    return operation(operation(column(0), column(1)), operation(column(2), column(3)));
  }

  // Adds a visit to the maximum and the sum of each pixel and head.
  __device__ __forceinline__ void measure(const Visit& visit) {
    const bool first = visit.first_token == 0;
    float top[2] = {kLowest, kLowest}, sum[2] = {0.0f, 0.0f};
    over_heads(
        visit,
        [&](int j, int) {
#pragma unroll
          for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], scores[j][i] + memory.closed[column_of(2 * j + i % 2)]);
        },
        [&](int segment) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float *maximum = &memory.row_maximum[segment][row + 8 * half], *total = &memory.row_sum[segment][row + 8 * half];
            const float reduced = quad_reduce(top[half], Maximum());
            if (lane % 4 == 0) {
              const float before = first ? kLowest : *maximum, after = fmaxf(before, reduced);
              *total = first ? 0.0f : *total * exponential<T>(before - shift_of(after));
              *maximum = after;
            }
            top[half] = kLowest;
          }
        });
    __syncwarp();
    over_heads(
        visit,
        [&](int j, int segment) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float shift = shift_of(memory.row_maximum[segment][row + i / 2 * 8]);
            const float e = exponential<T>(scores[j][i] + memory.closed[column_of(2 * j + i % 2)] - shift);
            sum[i / 2] += e;
            if (visit.weighs) scores[j][i] = e;
          }
        },
        [&](int segment) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float reduced = quad_reduce(sum[half], Sum());
            if (lane % 4 == 0) memory.row_sum[segment][row + 8 * half] += reduced;
            sum[half] = 0.0f;
          }
        });
    __syncwarp();
  }

  // The paint's weights, from exponentials where `measure` left them and else from scores; and each pixel's lse.
  __device__ __forceinline__ void weigh(const Visit& visit) {
    over_heads(
        visit,
        [&](int j, int segment) {
          const int column = column_of(2 * j);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float total = memory.row_sum[segment][row + 8 * half], shift = shift_of(memory.row_maximum[segment][row + 8 * half]);
            const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
            float x = scores[j][2 * half], y = scores[j][2 * half + 1];
            if (!visit.measures) {
              x = exponential<T>(x + memory.closed[column] - shift);
              y = exponential<T>(y + memory.closed[column + 1] - shift);
            }
            const Pair<T> pair{from_float<T>(x * inverse), from_float<T>(y * inverse)};
            *reinterpret_cast<Pair<T>*>(weight_at(row + 8 * half, visit.packed + column)) = pair;
          }
        },
        [&](int segment) {
          if (lane % 4 == 0 && visit.first_token == 0) store_lse(visit.head + segment, segment);
        });
  }

  __device__ __forceinline__ T* weight_at(int pixel, int token) const {
    if (weights.base != nullptr) return weights.at(pixel, token);
    return static_cast<T*>(a.paint_weights) + ((sample * a.tiles + tile) * kTilePixels + pixel) * a.packed + token;
  }

  __device__ __forceinline__ void store_lse(int head, int segment) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t n = tile * kTilePixels + row + 8 * half;
      const float total = memory.row_sum[segment][row + 8 * half];
      const float lse = total == 0.0f ? kLowest : shift_of(memory.row_maximum[segment][row + 8 * half]) + logf(total);
      if (n < a.N) a.pixel_lse[(sample * a.H + head) * a.N + n] = lse;
    }
  }
};

struct Alignment {
  bool pixels, keys, values;
};

template <class T, bool kPaint, bool kPool, bool kTwin>
__global__ void __launch_bounds__(kScoresThreads, kScoresBlocks)
    scores_kernel(const __grid_constant__ TokenPixelForward a, const __grid_constant__ Visits visits, Alignment aligned, bool paints) {
  constexpr int kDepth = kPanelColumns<T>;
  char* shared = shared_memory();
  char* behind = shared + kScoresStages * kScoresStageBytes;
  const int64_t tile = blockIdx.x % a.tiles, sample = blockIdx.x / a.tiles;
  ScoresTile<T, kPaint, kPool, kTwin> block{a, visits, *reinterpret_cast<ScoresMemory*>(behind),
                                            Panels<T>{paints ? behind + sizeof(ScoresMemory) : nullptr, kTilePixels}, sample, tile};
  block.prepare();
  const int first = blockIdx.y * visits.per_block, chunks = a.C > 0 ? static_cast<int>((a.C + kDepth - 1) / kDepth) : 1;
  const int mine = visits.count - first < visits.per_block ? visits.count - first : visits.per_block;
  const auto pixels = [&](int stage) { return Panels<T>{shared + stage * kScoresStageBytes, kTilePixels}; };
  const auto keys = [&](int stage) { return Panels<T>{shared + stage * kScoresStageBytes + kScoresPixelBytes, kVisitTokens}; };
  pipeline<kScoresStages>(
      mine * chunks,
      [&](int step, int stage) {
        const Visit visit = visit_at(a, visits, first + step / chunks);
        const int64_t c0 = static_cast<int64_t>(step % chunks) * kDepth;
        load_panels<T>(pixels(stage), kTilePixels, 1, a.C - c0, aligned.pixels, a.pixels.data, [&](int i) {
          const T* x = pixel_row<T>(a, sample, tile * kTilePixels + i);
          return x ? x + c0 : nullptr;
        });
        load_panels<T>(keys(stage), (visit.tokens + 15) / 16 * 16, 1, a.C - c0, aligned.keys, a.keys[0].data, [&](int i) {
          const int head = visit.head + i / visits.padded, l = visit.first_token + i % visits.padded;
          if (i >= visit.tokens) return static_cast<const T*>(nullptr);
          const bool second = kTwin && head >= a.bank_heads;
          const T* key = token_row<T>(a.keys[second], a.L, sample, head - (second ? a.bank_heads : 0), l);
          return key ? key + c0 : nullptr;
        });
      },
      [&](int step, int stage) {
        const Visit visit = visit_at(a, visits, first + step / chunks);
        const int chunk = step % chunks;
        if (chunk == 0) {
#pragma unroll
          for (int i = 0; i < 4 * kColumnTiles; ++i) block.scores[i / 4][i % 4] = 0.0f;
        }
        const int left = static_cast<int>(a.C) - chunk * kDepth;
        warp_product<T, Depth::kAlongRows, Depth::kAlongRows>(block.scores, pixels(stage), threadIdx.x / 32 * 16, keys(stage), 0,
                                                              left < kDepth ? (left + 15) / 16 * 16 : kDepth, visit.tokens / 8);
        if (chunk == chunks - 1) block.finish(visit);
      });
  if constexpr (kPaint) {
    if (!paints) return;
    paint_tile<T>(a, sample, tile * kTilePixels, 0, a.D, aligned.values, shared,
                  [&](int depth, int) { return Panels<T>{block.weights.base + depth * kTilePixels * kPanelBytes, kTilePixels}; },
                  [](int, int) {});
  }
}

}  // namespace rk
