// Matrices in shared memory, the products of a warp over them, and the pipeline that fills them.
//
// A matrix is cut into panels 128 bytes wide. The eight 16-byte units of a row are permuted by the row's number, so that
// eight rows of one column of units lie in different banks: what ldmatrix reads at a time, and the fp32 path too.
#pragma once

#include "elements.cuh"
#include "intrinsics.cuh"

namespace rk {

constexpr int kPanelBytes = 128;

template <class T>
constexpr int kPanelColumns = kPanelBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int kUnit = 16 / static_cast<int>(sizeof(T));  // elements that move together

// A rows x columns matrix in panels, one after the other.
template <class T>
struct Panels {
  char* base;
  int rows;

  __device__ __forceinline__ char* unit(int row, int column) const {
    const int panel = column / kPanelColumns<T>, unit = column % kPanelColumns<T> / kUnit<T>;
    return base + (panel * rows + row) * kPanelBytes + ((unit ^ (row & 7)) << 4);
  }
  __device__ __forceinline__ T* at(int row, int column) const {
    return reinterpret_cast<T*>(unit(row, column)) + column % kUnit<T>;
  }
};

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

// Copies `columns` columns of `rows` rows into panels; row(i) gives where row i begins, null for a row of zeros. With
// `aligned` rows in 16-byte pieces that land behind the next wait, else one by one. The rest of the last panel is zeros.
template <class T, class Row>
__device__ __forceinline__ void load_panels(const Panels<T>& to, int rows, int panels, int64_t columns, bool aligned, const void* any,
                                            const Row& row) {
  const int units = rows * 8;
  for (int i = threadIdx.x; i < units * panels; i += blockDim.x) {
    const int panel = i / units, r = i % units / 8;
    const int column = panel * kPanelColumns<T> + i % 8 * kUnit<T>;
    const T* from = row(r);
    const int64_t left = from ? columns - column : 0;
    const int count = left < 0 ? 0 : left < kUnit<T> ? static_cast<int>(left) : kUnit<T>;
    char* unit = to.unit(r, column);
    if (aligned) {
      cp_async_16(unit, count > 0 ? static_cast<const void*>(from + column) : any, count * static_cast<int>(sizeof(T)));
    } else {
      T* values = reinterpret_cast<T*>(unit);
#pragma unroll
      for (int k = 0; k < kUnit<T>; ++k) values[k] = k < count ? from[column + k] : from_float<T>(0.0f);
    }
  }
}

// Runs use(i, stage) for every step, with the loads of the next kStages - 1 steps on their way.
template <int kStages, class Load, class Use>
__device__ __forceinline__ void pipeline(int steps, const Load& load, const Use& use) {
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < steps) load(i, i);
    cp_async_commit();
  }
  for (int i = 0; i < steps; ++i) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // step i has arrived for all, and all have used what is loaded over now
    const int next = i + kStages - 1;
    if (next < steps) load(next, next % kStages);
    cp_async_commit();
    use(i, i % kStages);
  }
  cp_async_wait<0>();
  __syncthreads();
}

// How an operand lies in shared memory: with the products' depth along its rows' elements, or down its rows.
enum class Depth { kAlongRows, kDownRows };

// A warp's product: sums[j] += a b for 16 rows from m0 on and the columns n0 + 8 j and following, over `depth` from 0 on (a
// multiple of 16; of 8 in fp32). Of the kTiles column tiles the first `used` are computed. Element i of a lane's sums[j] is
// row lane / 4 (+ 8 from 2 on), column 8 j + 2 (lane % 4) + i % 2, in fp32 as in the tensor cores.
template <class T, Depth kA, Depth kB, int kTiles>
__device__ __forceinline__ void multiply(float (&sums)[kTiles][4], const Panels<T>& a, int m0, const Panels<T>& b, int n0, int depth,
                                         int used) {
  static_assert(sizeof(T) == 2 && kTiles % 2 == 0);
  const int matrix = threadIdx.x % 32 / 8, row = threadIdx.x % 8, low = matrix & 1, high = matrix >> 1;
  for (int k = 0; k < depth; k += 16) {
    uint32_t fa[4];
    if constexpr (kA == Depth::kAlongRows) {
      ldmatrix<4, false>(fa, a.unit(m0 + low * 8 + row, k + high * 8));
    } else {
      ldmatrix<4, true>(fa, a.unit(k + high * 8 + row, m0 + low * 8));
    }
#pragma unroll
    for (int j = 0; j < kTiles; j += 2) {
      if (j >= used) continue;
      uint32_t fb[4];
      if constexpr (kB == Depth::kAlongRows) {
        ldmatrix<4, false>(fb, b.unit(n0 + (j + high) * 8 + row, k + low * 8));
      } else {
        ldmatrix<4, true>(fb, b.unit(k + low * 8 + row, n0 + (j + high) * 8));
      }
      mma_m16n8k16(sums[j], fa, fb[0], fb[1], T());
      if (j + 1 < used) mma_m16n8k16(sums[j + 1], fa, fb[2], fb[3], T());
    }
  }
}

// Four elements along the depth, from k on, of one row or column of an operand.
template <Depth kDepth>
__device__ __forceinline__ void load_depth(float (&values)[4], const Panels<float>& from, int index, int k) {
  if constexpr (kDepth == Depth::kAlongRows) {
    const float4 four = *reinterpret_cast<const float4*>(from.unit(index, k));
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  } else {
#pragma unroll
    for (int d = 0; d < 4; ++d) values[d] = *from.at(k + d, index);
  }
}

// The plain fp32 path: the same layout, each lane computing its own elements.
template <Depth kA, Depth kB, int kTiles>
__device__ __forceinline__ void multiply_fp32(float (&sums)[kTiles][4], const Panels<float>& a, int m0, const Panels<float>& b, int n0,
                                              int depth, int used) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int k = 0; k < depth; k += 4) {
    float x[2][4];
    load_depth<kA>(x[0], a, m0 + g, k);
    load_depth<kA>(x[1], a, m0 + 8 + g, k);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      if (j >= used) continue;
      const int n = n0 + 8 * j + 2 * t;
      float y[2][4];
      if constexpr (kB == Depth::kAlongRows) {
        load_depth<kB>(y[0], b, n, k);
        load_depth<kB>(y[1], b, n + 1, k);
      } else {
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          const Pair<float> both = *reinterpret_cast<const Pair<float>*>(b.at(k + d, n));
          y[0][d] = both.x, y[1][d] = both.y;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // Four at a time, for the accuracy of sums over a thousand channels.
        const float *u = x[i / 2], *v = y[i % 2];
        sums[j][i] += (u[0] * v[0] + u[1] * v[1]) + (u[2] * v[2] + u[3] * v[3]);
      }
    }
  }
}

template <class T, Depth kA, Depth kB, int kTiles>
__device__ __forceinline__ void warp_product(float (&sums)[kTiles][4], const Panels<T>& a, int m0, const Panels<T>& b, int n0, int depth,
                                             int used) {
  if constexpr (sizeof(T) == 4) {
    multiply_fp32<kA, kB, kTiles>(sums, a, m0, b, n0, depth, used);
  } else {
    multiply<T, kA, kB, kTiles>(sums, a, m0, b, n0, depth, used);
  }
}

}  // namespace rk
