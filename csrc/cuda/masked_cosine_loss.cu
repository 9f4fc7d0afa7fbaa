// Mean of 1 - cos over the counted rows of each sample, and its gradients. Bound by memory: a counted row is read once (beyond
// 512 columns the backward reads it from the cache again), 16 bytes at a time where its alignment allows; other rows are not
// read. Sums are in fp32 and in one order: lanes of a row, rows of a warp, warps of a block, blocks of a sample.
#include "masked_cosine_loss.h"

#include "launch.cuh"

namespace rrsis_kernels {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kWarps = 8, kThreads = 32 * kWarps;
// Blocks that a multiprocessor must have room for. Left to itself ptxas sometimes makes room for one more by spilling.
constexpr int kForwardBlocks = 3, kBackwardBlocks = 2;
constexpr int kWarpRows = 8;                     // rows whose masks a warp reads at once
constexpr int kBlockRows = kWarps * kWarpRows;
constexpr int kCountRows = 16384;                // mask bytes that a block of the backward counts
constexpr float kFloor = 1e-8f;                  // reference.COSINE_EPS

// Blocks of a grid for `items` pieces of work; a block takes further ones where there are more than a grid can have.
dim3 grid_for(int64_t items) { return dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)); }
int64_t parts_of(int64_t N, int64_t rows) { return (N + rows - 1) / rows; }

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ void from_float(float v, float* to) { *to = v; }
__device__ __forceinline__ void from_float(float v, __nv_bfloat16* to) { *to = __float2bfloat16_rn(v); }
__device__ __forceinline__ void from_float(float v, __half* to) { *to = __float2half_rn(v); }

// Sum over the lanes that differ in the bits from kFrom up to kBelow.
template <int kFrom, int kBelow, class T>
__device__ __forceinline__ T sum_lanes(T v) {
#pragma unroll
  for (int bit = kFrom; bit < kBelow; bit *= 2) v += __shfl_xor_sync(kAll, v, bit);
  return v;
}

// 16 bytes of a row, which one instruction reads where kAligned. The sums are the same, in the same order, where it does not.
template <class T>
struct alignas(16) Packet {
  static constexpr int kWidth = 16 / sizeof(T);
  T values[kWidth];
};

template <bool kAligned, class T>
__device__ __forceinline__ void read(const T* row, int64_t at, int64_t end, Packet<T>* packet) {
  if constexpr (kAligned) {
    if (at < end) *packet = *reinterpret_cast<const Packet<T>*>(row + at);
  } else {
#pragma unroll
    for (int i = 0; i < packet->kWidth; ++i)
      if (at + i < end) packet->values[i] = row[at + i];
  }
}

template <bool kAligned, class T>
__device__ __forceinline__ void write(const Packet<T>& packet, T* row, int64_t at, int64_t end) {
  if constexpr (kAligned) {
    if (at < end) *reinterpret_cast<Packet<T>*>(row + at) = packet;
  } else {
#pragma unroll
    for (int i = 0; i < packet.kWidth; ++i)
      if (at + i < end) row[at + i] = packet.values[i];
  }
}

// Where a lane reads and writes its share of one row.
template <class T>
struct Row {
  const T *x, *y;
  int64_t gradient;  // offset in both gradients
};

struct Products {
  float xy = 0, xx = 0, yy = 0;
};

// kLanes lanes share a row: each holds kPackets packets of both inputs, kSpan columns together, and zeros for what there is
// not. More packets would have more reads under way and fewer warps to a multiprocessor.
template <class T, int kLanes, bool kAligned>
struct Tile {
  static constexpr int kWidth = Packet<T>::kWidth, kPackets = 16 / kWidth, kSpan = kPackets * kLanes * kWidth;
  Packet<T> x[kPackets], y[kPackets];

  __device__ __forceinline__ int64_t column(int packet) const {
    return (packet * kLanes + static_cast<int>(threadIdx.x) % kLanes) * kWidth;
  }
  __device__ __forceinline__ void load(const Row<T>& row, int64_t first, int64_t C, bool counted) {
#pragma unroll
    for (int p = 0; p < kPackets; ++p) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) from_float(0, &x[p].values[i]), from_float(0, &y[p].values[i]);
      if (!counted) continue;
      read<kAligned>(row.x, first + column(p), C, &x[p]);
      read<kAligned>(row.y, first + column(p), C, &y[p]);
    }
  }
  __device__ __forceinline__ void multiply(Products& sums) const {
#pragma unroll
    for (int p = 0; p < kPackets; ++p) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float a = to_float(x[p].values[i]), b = to_float(y[p].values[i]);
        sums.xy += a * b, sums.xx += a * a, sums.yy += b * b;
      }
    }
  }
};

// The products of whole rows, known to all lanes of a row. Only the last kSpan columns are still in the tile.
template <class T, int kLanes, bool kAligned>
__device__ __forceinline__ Products row_products(Tile<T, kLanes, kAligned>& tile, const Row<T>& row, int64_t C, bool counted) {
  Products sums;
  for (int64_t first = 0; first < C; first += tile.kSpan) {
    tile.load(row, first, C, counted);
    tile.multiply(sums);
  }
  return {sum_lanes<1, kLanes>(sums.xy), sum_lanes<1, kLanes>(sums.xx), sum_lanes<1, kLanes>(sums.yy)};
}

// A row's length as it is divided by. NaN stays: fmaxf would drop it.
__device__ __forceinline__ float at_least_floor(float square) {
  const float length = sqrtf(square);
  return length < kFloor ? kFloor : length;
}

// Which of the warp's rows exist and count, as bits.
__device__ __forceinline__ uint32_t counted_rows(const MaskedCosineArgs& args, int64_t sample, int64_t first) {
  const int64_t row = first + (threadIdx.x & 31);
  const uint8_t* mask = static_cast<const uint8_t*>(args.mask.data) + sample * args.mask.batch;
  return __ballot_sync(kAll, static_cast<int>(threadIdx.x & 31) < kWarpRows && row < args.N && mask[row * args.mask.row] != 0);
}

template <class T>
__device__ __forceinline__ Row<T> row_at(const MaskedCosineArgs& args, int64_t sample, int64_t row) {
  return {static_cast<const T*>(args.prediction.data) + sample * args.prediction.batch + row * args.prediction.row,
          static_cast<const T*>(args.target.data) + sample * args.target.batch + row * args.target.row,
          (sample * args.N + row) * args.C};
}

struct Share {
  float sum;
  int count;
};

// What a warp's rows add to the loss: known to all lanes.
template <class T, int kLanes, bool kAligned>
__device__ __forceinline__ Share warp_share(const MaskedCosineArgs& args, int64_t sample, int64_t first) {
  constexpr int kGroups = 32 / kLanes;
  const int group = static_cast<int>(threadIdx.x & 31) / kLanes;
  const uint32_t bits = counted_rows(args, sample, first);
  float sum = 0;
  int count = 0;
  for (int step = 0; step < kWarpRows / kGroups; ++step) {
    if ((bits >> (step * kGroups) & ((1u << kGroups) - 1)) == 0) continue;
    const int r = step * kGroups + group;
    const bool counted = bits >> r & 1;
    Tile<T, kLanes, kAligned> tile;
    const Products p = row_products(tile, row_at<T>(args, sample, first + r), args.C, counted);
    if (counted) sum += 1.0f - p.xy / at_least_floor(p.xx) / at_least_floor(p.yy);
    count += counted;
  }
  return {sum_lanes<kLanes, 32>(sum), sum_lanes<kLanes, 32>(count)};
}

template <class T, int kLanes, bool kAligned>
__global__ void __launch_bounds__(kThreads, kForwardBlocks) forward_kernel(MaskedCosineArgs args, int64_t parts) {
  Share* shares = reinterpret_cast<Share*>(rk::shared_memory());
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t item = blockIdx.x; item < args.B * parts; item += gridDim.x) {
    const int64_t sample = item / parts, part = item % parts;
    const Share share = warp_share<T, kLanes, kAligned>(args, sample, part * kBlockRows + warp * kWarpRows);
    if (threadIdx.x % 32 == 0) shares[warp] = share;
    __syncthreads();
    if (threadIdx.x == 0) {
      Share all{0, 0};
      for (int w = 0; w < kWarps; ++w) all.sum += shares[w].sum, all.count += shares[w].count;
      args.part_sums[item] = all.sum;
      args.part_counts[item] = all.count;
    }
    __syncthreads();  // before the next item's shares
  }
}

// The sum of a sample's parts, known to all lanes of the warp.
template <class To, class T>
__device__ __forceinline__ To sum_parts(const T* values, int64_t sample, int64_t parts) {
  To sum = 0;
  for (int64_t i = threadIdx.x & 31; i < parts; i += 32) sum += values[sample * parts + i];
  return sum_lanes<1, 32>(sum);
}

__global__ void __launch_bounds__(32) mean_kernel(MaskedCosineArgs args, int64_t parts) {
  for (int64_t sample = blockIdx.x; sample < args.B; sample += gridDim.x) {
    const float sum = sum_parts<float>(args.part_sums, sample, parts);
    const int64_t rows = sum_parts<int64_t>(args.part_counts, sample, parts);
    if (threadIdx.x == 0) args.loss[sample] = sum / static_cast<float>(rows > 0 ? rows : 1);
  }
}

__global__ void __launch_bounds__(kThreads) count_kernel(MaskedCosineArgs args, int64_t parts) {
  int* counts = reinterpret_cast<int*>(rk::shared_memory());
  for (int64_t item = blockIdx.x; item < args.B * parts; item += gridDim.x) {
    const int64_t sample = item / parts, first = item % parts * kCountRows;
    const uint8_t* mask = static_cast<const uint8_t*>(args.mask.data) + sample * args.mask.batch;
    const int64_t end = args.N - first < kCountRows ? args.N - first : kCountRows;
    int count = 0;
    for (int64_t i = threadIdx.x; i < end; i += kThreads) count += mask[(first + i) * args.mask.row] != 0;
    count = sum_lanes<1, 32>(count);
    if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = count;
    __syncthreads();
    if (threadIdx.x == 0) {
      int all = 0;
      for (int w = 0; w < kWarps; ++w) all += counts[w];
      args.part_counts[item] = all;
    }
    __syncthreads();  // before the next item's counts
  }
}

// Factors of a row's gradients: dx = own_x x - cross y, dy = own_y y - cross x. A floored length has no gradient.
struct Factors {
  float cross, own_x, own_y;
};

__device__ __forceinline__ Factors factors(const Products& p, float scale) {
  const float x_length = at_least_floor(p.xx), y_length = at_least_floor(p.yy);
  const float cross = scale / x_length / y_length;
  const float own = cross * p.xy;
  return {cross, sqrtf(p.xx) < kFloor ? 0 : own / x_length / x_length, sqrtf(p.yy) < kFloor ? 0 : own / y_length / y_length};
}

// Gradients of the columns in a tile.
template <class T, int kLanes, bool kAligned>
__device__ __forceinline__ void write_gradients(const MaskedCosineArgs& args, const Tile<T, kLanes, kAligned>& tile, const Row<T>& row,
                                                int64_t first, const Factors& f) {
#pragma unroll
  for (int p = 0; p < tile.kPackets; ++p) {
    Packet<T> dx, dy;
#pragma unroll
    for (int i = 0; i < tile.kWidth; ++i) {
      const float a = to_float(tile.x[p].values[i]), b = to_float(tile.y[p].values[i]);
      from_float(f.own_x * a - f.cross * b, &dx.values[i]);
      from_float(f.own_y * b - f.cross * a, &dy.values[i]);
    }
    write<kAligned>(dx, static_cast<T*>(args.grad_prediction) + row.gradient, first + tile.column(p), args.C);
    write<kAligned>(dy, static_cast<T*>(args.grad_target) + row.gradient, first + tile.column(p), args.C);
  }
}

template <class T, int kLanes, bool kAligned>
__device__ __forceinline__ void row_gradients(const MaskedCosineArgs& args, const Row<T>& row, bool counted, bool exists, float scale) {
  Tile<T, kLanes, kAligned> tile;
  const Products p = row_products(tile, row, args.C, counted);
  const Factors f = factors(p, counted ? scale : 0);  // all lanes divide: a call in a branch costs registers
  if (!exists) return;
  for (int64_t first = 0; first < args.C; first += tile.kSpan) {
    if (args.C > tile.kSpan) tile.load(row, first, args.C, counted);  // a longer row is read again, from the cache
    write_gradients(args, tile, row, first, f);
  }
}

template <class T, int kLanes, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks) backward_kernel(MaskedCosineArgs args, int64_t parts, int64_t count_parts) {
  constexpr int kGroups = 32 / kLanes;
  const int warp = static_cast<int>(threadIdx.x) / 32, group = static_cast<int>(threadIdx.x & 31) / kLanes;
  for (int64_t item = blockIdx.x; item < args.B * parts; item += gridDim.x) {
    const int64_t sample = item / parts, first = item % parts * kBlockRows + warp * kWarpRows;
    const int64_t rows = sum_parts<int64_t>(args.part_counts, sample, count_parts);
    const float scale = args.grad_loss[sample * args.grad_loss_stride] / static_cast<float>(rows > 0 ? rows : 1);
    const uint32_t bits = counted_rows(args, sample, first);
    for (int step = 0; step < kWarpRows / kGroups; ++step) {
      const int64_t row = first + step * kGroups + group;
      const bool counted = bits >> (step * kGroups + group) & 1;
      row_gradients<T, kLanes, kAligned>(args, row_at<T>(args, sample, row), counted, row < args.N, scale);
    }
  }
}

bool starts_on_16_bytes(const RowView& view, const MaskedCosineArgs& args, int64_t element) {
  const auto whole = [](int64_t bytes) { return bytes % 16 == 0; };
  return whole(static_cast<int64_t>(reinterpret_cast<uintptr_t>(view.data))) && (args.B <= 1 || whole(view.batch * element)) &&
         (args.N <= 1 || whole(view.row * element));
}

// Calls run.operator()<T, kLanes, kAligned>(): few lanes for short rows, and whole packets where both inputs allow them.
template <class T, class Run>
cudaError_t with_widths(const MaskedCosineArgs& args, const Run& run) {
  constexpr int kElement = sizeof(T);
  const bool aligned = args.C % Packet<T>::kWidth == 0 && starts_on_16_bytes(args.prediction, args, kElement) &&
                       starts_on_16_bytes(args.target, args, kElement);
  const bool is_short = args.C <= Tile<T, 8, true>::kSpan;
  if (aligned) return is_short ? run.template operator()<T, 8, true>() : run.template operator()<T, 32, true>();
  return is_short ? run.template operator()<T, 8, false>() : run.template operator()<T, 32, false>();
}

template <class Run>
cudaError_t with_kernels(const MaskedCosineArgs& args, const Run& run) {
  if (args.dtype == kFloat32) return with_widths<float>(args, run);
  if (args.dtype == kBFloat16) return with_widths<__nv_bfloat16>(args, run);
  return with_widths<__half>(args, run);
}

}  // namespace

int64_t masked_cosine_forward_parts(int64_t N) { return parts_of(N, kBlockRows); }
int64_t masked_cosine_backward_parts(int64_t N) { return parts_of(N, kCountRows); }

cudaError_t masked_cosine_forward(const MaskedCosineArgs& args, cudaStream_t stream) {
  if (args.B == 0) return cudaSuccess;
  const int64_t parts = masked_cosine_forward_parts(args.N);
  if (parts > 0) {
    const auto run = [&]<class T, int kLanes, bool kAligned>() {
      return rk::launch(forward_kernel<T, kLanes, kAligned>, grid_for(args.B * parts), dim3(kThreads), kWarps * sizeof(Share), stream,
                        args, parts);
    };
    const cudaError_t error = with_kernels(args, run);
    if (error != cudaSuccess) return error;
  }
  return rk::launch(mean_kernel, grid_for(args.B), dim3(32), 0, stream, args, parts);
}

cudaError_t masked_cosine_backward(const MaskedCosineArgs& args, cudaStream_t stream) {
  const int64_t parts = parts_of(args.N, kBlockRows), count_parts = masked_cosine_backward_parts(args.N);
  const cudaError_t error = rk::launch(count_kernel, grid_for(args.B * count_parts), dim3(kThreads), kWarps * sizeof(int), stream,
                                       args, count_parts);
  if (error != cudaSuccess) return error;
  const auto run = [&]<class T, int kLanes, bool kAligned>() {
    return rk::launch(backward_kernel<T, kLanes, kAligned>, grid_for(args.B * parts), dim3(kThreads), 0, stream, args, parts,
                      count_parts);
  };
  return with_kernels(args, run);
}

}  // namespace rrsis_kernels
