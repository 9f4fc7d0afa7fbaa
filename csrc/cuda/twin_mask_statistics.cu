// Kernels and launchers of twin_mask_statistics.h.
#include "twin_mask_statistics.h"

#include <algorithm>

#include "elements.cuh"
#include "intrinsics.cuh"

namespace rrsis_kernels {
namespace {

constexpr int kLanes = 32, kWarps = 4, kThreads = kLanes * kWarps;
constexpr int kRun = 4;                 // neighbouring pixels of a lane
constexpr int kAcross = kLanes * kRun;  // pixels of a strip
constexpr int kDown = 8;
constexpr int kSums = kMaskStatisticsSums;
enum Sum { kBceJoint, kBceTarget, kBceBackground, kProbability, kProbabilityMask, kMask, kCount, kIntersection, kUnion };

// One direction of the resize, `in` logits to `out` pixels.
struct Axis {
  int in, out;
  float ratio, inverse;  // in / out, out / in
  int strips;
};

struct Problem {
  MaskStatisticsInputs in;
  Axis y, x;
  bool wide_mask, wide_valid;  // four pixels lie where one load can take them
  int most_rows, most_columns;  // of the logits that a strip reads
  __host__ __device__ int64_t strips() const { return static_cast<int64_t>(y.strips) * x.strips; }
};

// A pixel lies between logit `low` and the next one, which has the share `far`.
struct Source {
  int low;
  float far;
};

// As F.interpolate(mode="bilinear", align_corners=False) has it, each operation rounded to fp32 and none fused, as in the
// project's other kernels. At the last logit there is no next one.
__device__ __forceinline__ Source source(const Axis& axis, int pixel) {
  const float exact = __fadd_rn(__fmul_rn(axis.ratio, static_cast<float>(pixel) + 0.5f), -0.5f);
  const float at = exact > 0.0f ? exact : 0.0f;
  const int low = min(static_cast<int>(at), axis.in - 1);
  return {low, low < axis.in - 1 ? at - static_cast<float>(low) : 0.0f};
}

// No pixel before this one has a source at `logit` or behind it; at most two pixels early.
__device__ __forceinline__ int pixel_before(const Axis& axis, int logit) {
  const float guess = (static_cast<float>(logit) + 0.5f) * axis.inverse - 0.5f;
  return max(static_cast<int>(guess) - 1, 0);
}

__device__ __forceinline__ int first_logit(const Axis& axis, int strip, int size) { return source(axis, strip * size).low; }
__device__ __forceinline__ int last_logit(const Axis& axis, int strip, int size) {
  return min(source(axis, min((strip + 1) * size, axis.out) - 1).low + 1, axis.in - 1);
}

// A warp's pixels, and the columns of a lane.
struct Strip {
  int64_t number, sample;
  int across, down;           // which strip of the sample
  int y, y_end, x;            // rows of the strip, first pixel of the lane
  int low[kRun];              // a lane's columns: the logits that they lie between
  float far[kRun];
};

// False where a warp has nothing to do.
__device__ __forceinline__ bool take_strip(const Problem& p, Strip& s) {
  s.number = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  if (s.number >= p.in.B * p.strips()) return false;
  s.sample = s.number / p.strips();
  const int rest = static_cast<int>(s.number - s.sample * p.strips());
  s.down = rest / p.x.strips, s.across = rest % p.x.strips;
  s.y = s.down * kDown, s.y_end = min(s.y + kDown, p.y.out);
  s.x = s.across * kAcross + threadIdx.x % kLanes * kRun;
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const Source at = source(p.x, min(s.x + i, p.x.out - 1));
    s.low[i] = at.low, s.far[i] = at.far;
  }
  return true;
}

__device__ __forceinline__ float mix(float near, float far, float share) { return near * (1.0f - share) + far * share; }

template <class T>
__device__ __forceinline__ void read_columns(const Problem& p, const Strip& s, const RowView& map, int row, float (&to)[kRun]) {
  const T* from = static_cast<const T*>(map.data) + s.sample * map.batch + row * map.row;
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int next = min(s.low[i] + 1, p.x.in - 1);
    to[i] = mix(rk::to_float(from[s.low[i]]), rk::to_float(from[next]), s.far[i]);
  }
}

// A row of logits of both maps, resized across to the lane's columns.
__device__ __forceinline__ void read_logits(const Problem& p, const Strip& s, int row, float (&to)[2][kRun]) {
#pragma unroll
  for (int map = 0; map < 2; ++map) {
    const RowView& view = map == 0 ? p.in.target : p.in.background;
    if (p.in.dtype == kFloat32) {
      read_columns<float>(p, s, view, row, to[map]);
    } else if (p.in.dtype == kBFloat16) {
      read_columns<__nv_bfloat16>(p, s, view, row, to[map]);
    } else {
      read_columns<__half>(p, s, view, row, to[map]);
    }
  }
}

template <class T>
struct alignas(kRun * sizeof(T)) Run {
  T values[kRun];
};

template <class T>
__device__ __forceinline__ void read_run(const Problem& p, const Strip& s, const RowView& map, int row, bool wide, float (&to)[kRun]) {
  const T* from = static_cast<const T*>(map.data) + s.sample * map.batch + row * map.row + s.x;
  Run<T> run{};
  if (wide && s.x + kRun <= p.x.out) {
    run = *reinterpret_cast<const Run<T>*>(from);
  } else {
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      if (s.x + i < p.x.out) run.values[i] = from[i];
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) to[i] = rk::to_float(run.values[i]);
}

// The lane's pixels of a row: the object's share of each, and whether it counts.
struct Pixels {
  float truth[kRun], counted[kRun];
};

__device__ __forceinline__ Pixels read_pixels(const Problem& p, const Strip& s, int row) {
  Pixels pixels;
  switch (p.in.mask_dtype) {
    case kUInt8: read_run<uint8_t>(p, s, p.in.mask, row, p.wide_mask, pixels.truth); break;
    case kFloat32: read_run<float>(p, s, p.in.mask, row, p.wide_mask, pixels.truth); break;
    case kBFloat16: read_run<__nv_bfloat16>(p, s, p.in.mask, row, p.wide_mask, pixels.truth); break;
    case kFloat16: read_run<__half>(p, s, p.in.mask, row, p.wide_mask, pixels.truth); break;
    default: read_run<double>(p, s, p.in.mask, row, p.wide_mask, pixels.truth); break;
  }
  if (p.in.valid.data) {
    read_run<uint8_t>(p, s, p.in.valid, row, p.wide_valid, pixels.counted);
  } else {
#pragma unroll
    for (int i = 0; i < kRun; ++i) pixels.counted[i] = s.x + i < p.x.out ? 1.0f : 0.0f;
  }
  return pixels;
}

// Goes down a strip: use(pixels, near, far, share) for every row of pixels, with both maps at the lane's columns in the logit rows
// before and behind and the share of the latter; done(logit row) behind the last pixels after each logit row.
template <class Use, class Done>
__device__ __forceinline__ int walk(const Problem& p, const Strip& s, const Use& use, const Done& done) {
  int y = s.y;
  Source at = source(p.y, y);
  float near[2][kRun], far[2][kRun];
  int row = at.low;
  read_logits(p, s, row, far);
  for (; y < s.y_end; ++row) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) near[0][i] = far[0][i], near[1][i] = far[1][i];
    read_logits(p, s, min(row + 1, p.y.in - 1), far);
    while (y < s.y_end && at.low == row) {
      use(read_pixels(p, s, y), near, far, at.far);
      at = source(p.y, ++y);
    }
    done(row);
  }
  return row;
}

struct Sigmoid {
  float value, complement, softplus;  // 1 / (1 + e^-z), 1 minus that without cancellation, log(1 + e^z)
};

// NaN stays NaN. With s = e / (2 + e) <= 1/3 for e = e^-|z|, log(1 + e) = 2 artanh(s): a series, no logarithm.
__device__ __forceinline__ Sigmoid sigmoid(float z) {
  const float small = rk::exp2_approximate(fabsf(z) * -1.44269504f);
  const float large_side = rk::reciprocal_approximate(1.0f + small), small_side = small * large_side;
  const float s = small * rk::reciprocal_approximate(2.0f + small), square = s * s;
  float series = fmaf(square, 1.0f / 13, 1.0f / 11);
  series = fmaf(square, series, 1.0f / 9);
  series = fmaf(square, series, 1.0f / 7);
  series = fmaf(square, series, 1.0f / 5);
  series = fmaf(square, series, 1.0f / 3);
  const float softplus = (z > 0.0f ? z : 0.0f) + 2.0f * fmaf(s * square, series, s);
  return {z >= 0.0f ? large_side : small_side, z >= 0.0f ? small_side : large_side, softplus};
}

__device__ __forceinline__ void add_pixel(float (&sums)[kSums], float zt, float zb, float z, float t) {
  const Sigmoid joint = sigmoid(z);
  sums[kBceJoint] += joint.softplus - z * t;
  sums[kBceTarget] += sigmoid(zt).softplus - zt * t;
  sums[kBceBackground] += sigmoid(zb).softplus - zb * (1.0f - t);
  sums[kProbability] += joint.value;
  sums[kProbabilityMask] += joint.value * t;
  sums[kMask] += t;
  sums[kCount] += 1.0f;
  const bool chosen = z > 0.0f, object = t > 0.5f;
  sums[kIntersection] += chosen && object ? 1.0f : 0.0f;
  sums[kUnion] += chosen || object ? 1.0f : 0.0f;
}

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}

// partials: (B, 9, strips).
__global__ void __launch_bounds__(kThreads) forward_strips(Problem p, float* partials) {
  Strip strip;
  if (!take_strip(p, strip)) return;
  float sums[kSums] = {};
  walk(
      p, strip,
      [&](const Pixels& pixels, const float (&near)[2][kRun], const float (&far)[2][kRun], float share) {
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
          const float zt = mix(near[0][i], far[0][i], share), zb = mix(near[1][i], far[1][i], share);
          if (pixels.counted[i] != 0.0f) add_pixel(sums, zt, zb, p.in.joint_scale * (zt - zb), pixels.truth[i]);
        }
      },
      [](int) {});
  float* out = partials + strip.sample * kSums * p.strips() + strip.number % p.strips();
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    const float sum = sum_of_warp(sums[i]);
    if (threadIdx.x % kLanes == 0) out[i * p.strips()] = sum;
  }
}

// A warp adds up one sum of one sample.
__global__ void __launch_bounds__(kThreads) add_partials(const float* partials, float* sums, int64_t count, int64_t parts) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  if (entry >= count) return;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x % kLanes; i < parts; i += kLanes) sum += partials[entry * parts + i];
  sum = sum_of_warp(sum);
  if (threadIdx.x % kLanes == 0) sums[entry] = sum;
}

// What a warp's lanes tell each other, by pixel of the strip. A gap after every 32 lets lanes that read 2, 4 or 8 pixels
// apart, as they do at these factors, read from different banks.
struct Exchange {
  static constexpr int kSize = kAcross + kAcross / 32;
  int low[kSize];
  float far[kSize];
  float grads[2][kSize];
  static __device__ __forceinline__ int at(int pixel) { return pixel + pixel / 32; }
};

// What a row's pixels give to the logits of one logit row, from their columns to the logits': out[map][row][column].
__device__ __forceinline__ void gather_columns(const Problem& p, const Strip& s, Exchange& exchange, int row, const float (&grads)[2][kRun],
                                               float* out) {
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int i = 0; i < kRun; ++i)
#pragma unroll
    for (int map = 0; map < 2; ++map) exchange.grads[map][Exchange::at(lane * kRun + i)] = grads[map][i];
  __syncwarp();
  const int begin = s.across * kAcross, size = min(kAcross, p.x.out - begin);
  const int first = first_logit(p.x, s.across, kAcross), last = last_logit(p.x, s.across, kAcross);
  for (int logit = first + lane; logit <= last; logit += kLanes) {
    float sums[2] = {};
    int i = max(pixel_before(p.x, logit - 1) - begin, 0);
    while (i < size && exchange.low[Exchange::at(i)] < logit - 1) ++i;
    for (; i < size && exchange.low[Exchange::at(i)] <= logit; ++i) {
      const int at = Exchange::at(i);
      const float share = exchange.low[at] == logit ? 1.0f - exchange.far[at] : exchange.far[at];
      sums[0] += exchange.grads[0][at] * share;
      sums[1] += exchange.grads[1][at] * share;
    }
    float* to = out + (row - first_logit(p.y, s.down, kDown)) * p.most_columns + logit - first;
    to[0] = sums[0], to[p.most_rows * p.most_columns] = sums[1];
  }
  __syncwarp();  // before anyone writes the next row
}

// corners: (B, strips, 2, most_rows, most_columns), of which a strip writes what it reads logits for.
__global__ void __launch_bounds__(kThreads) backward_strips(Problem p, RowView grad_sums, float* corners) {
  Strip strip;
  if (!take_strip(p, strip)) return;
  Exchange& exchange = reinterpret_cast<Exchange*>(rk::shared_memory())[threadIdx.x / kLanes];
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int at = Exchange::at(threadIdx.x % kLanes * kRun + i);
    exchange.low[at] = strip.low[i], exchange.far[at] = strip.far[i];
  }
  const float* g = static_cast<const float*>(grad_sums.data) + strip.sample * grad_sums.batch;
  const float g_joint = g[kBceJoint], g_target = g[kBceTarget], g_background = g[kBceBackground];
  const float g_probability = g[kProbability], g_probability_mask = g[kProbabilityMask];
  float* out = corners + strip.number * 2 * p.most_rows * p.most_columns;
  float to_near[2][kRun] = {}, to_far[2][kRun] = {};  // by the lane's columns: what the two logit rows have got
  const int row = walk(
      p, strip,
      [&](const Pixels& pixels, const float (&near)[2][kRun], const float (&far)[2][kRun], float share) {
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
          const float zt = mix(near[0][i], far[0][i], share), zb = mix(near[1][i], far[1][i], share), t = pixels.truth[i];
          const Sigmoid joint = sigmoid(p.in.joint_scale * (zt - zb));
          const float spread = joint.value * joint.complement;
          const float dz = p.in.joint_scale * ((joint.value - t) * g_joint + spread * (t * g_probability_mask + g_probability));
          const bool counted = pixels.counted[i] != 0.0f;
          const float dt = counted ? dz + (sigmoid(zt).value - t) * g_target : 0.0f;
          const float db = counted ? (sigmoid(zb).value - (1.0f - t)) * g_background - dz : 0.0f;
          to_near[0][i] += dt * (1.0f - share), to_far[0][i] += dt * share;
          to_near[1][i] += db * (1.0f - share), to_far[1][i] += db * share;
        }
      },
      [&](int done) {
        gather_columns(p, strip, exchange, done, to_near, out);
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
          to_near[0][i] = to_far[0][i], to_near[1][i] = to_far[1][i];
          to_far[0][i] = to_far[1][i] = 0.0f;
        }
      });
  if (row < p.y.in) gather_columns(p, strip, exchange, row, to_near, out);
}

// The first strip that reads a logit.
__device__ __forceinline__ int first_strip(const Axis& axis, int logit, int size) {
  int strip = pixel_before(axis, logit - 1) / size;
  while (strip < axis.strips && last_logit(axis, strip, size) < logit) ++strip;
  return strip;
}

// A thread per logit adds up what the strips around it hold for it.
template <class T>
__global__ void __launch_bounds__(kThreads) add_corners(Problem p, const float* corners, T* grad_target, T* grad_background) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, map = static_cast<int64_t>(p.y.in) * p.x.in;
  if (number >= p.in.B * map) return;
  const int64_t sample = number / map;
  const int row = static_cast<int>((number - sample * map) / p.x.in), column = static_cast<int>((number - sample * map) % p.x.in);
  const int first_across = first_strip(p.x, column, kAcross);
  const int64_t size = static_cast<int64_t>(p.most_rows) * p.most_columns;
  float target = 0.0f, background = 0.0f;
  for (int down = first_strip(p.y, row, kDown); down < p.y.strips; ++down) {
    const int from_row = row - first_logit(p.y, down, kDown);
    if (from_row < 0) break;
    for (int across = first_across; across < p.x.strips; ++across) {
      const int from_column = column - first_logit(p.x, across, kAcross);
      if (from_column < 0) break;
      const int64_t strip = sample * p.strips() + static_cast<int64_t>(down) * p.x.strips + across;
      const float* from = corners + strip * 2 * size + static_cast<int64_t>(from_row) * p.most_columns + from_column;
      target += from[0], background += from[size];
    }
  }
  grad_target[number] = rk::from_float<T>(target);
  grad_background[number] = rk::from_float<T>(background);
}

// Launchers.

Axis axis_of(int64_t in, int64_t out, int strip) {
  const float ratio = out > 0 ? static_cast<float>(in) / static_cast<float>(out) : 0.0f;
  const float inverse = in > 0 ? static_cast<float>(out) / static_cast<float>(in) : 0.0f;
  return {static_cast<int>(in), static_cast<int>(out), ratio, inverse, static_cast<int>((out + strip - 1) / strip)};
}

// More than the logits that `size` pixels lie between, whatever rounding does.
int most_logits(const Axis& axis, int size) {
  return static_cast<int>(std::min<double>(axis.in, static_cast<double>(axis.ratio) * (size - 1) + 4));
}

bool runs_aligned(const RowView& view, size_t element) {
  const uintptr_t strides = static_cast<uintptr_t>(view.batch | view.row) * element;
  return (reinterpret_cast<uintptr_t>(view.data) | strides) % (kRun * element) == 0;
}

size_t mask_element(int dtype) { return dtype == kUInt8 ? 1 : dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2; }

Problem problem_of(const MaskStatisticsInputs& in) {
  Problem p{in, axis_of(in.h, in.Hm, kDown), axis_of(in.w, in.Wm, kAcross), false, false, 0, 0};
  p.wide_mask = in.mask_dtype != kFloat64 && runs_aligned(in.mask, mask_element(in.mask_dtype));
  p.wide_valid = runs_aligned(in.valid, 1);
  p.most_rows = most_logits(p.y, kDown), p.most_columns = most_logits(p.x, kAcross);
  return p;
}

bool is_too_large(const MaskStatisticsInputs& in) { return std::max({in.h, in.w, in.Hm, in.Wm}) > kMaskStatisticsMostSide; }

// Starts a kernel of one thread or one warp per item. A launch takes at most 2^31 - 1 blocks.
template <class... Parameters, class... Arguments>
cudaError_t launch_items(void (*kernel)(Parameters...), int64_t items, int per_block, size_t shared_bytes, cudaStream_t stream,
                         const Arguments&... arguments) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  if (blocks == 0) return cudaSuccess;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return rk::launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), shared_bytes, stream, arguments...);
}

template <class T>
cudaError_t launch_add_corners(const Problem& p, const float* corners, void* grad_target, void* grad_background, cudaStream_t stream) {
  return launch_items(add_corners<T>, p.in.B * p.in.h * p.in.w, kThreads, 0, stream, p, corners, static_cast<T*>(grad_target),
                      static_cast<T*>(grad_background));
}

}  // namespace

size_t twin_mask_statistics_forward_workspace(const MaskStatisticsInputs& in) {
  return sizeof(float) * in.B * kSums * problem_of(in).strips();
}

size_t twin_mask_statistics_backward_workspace(const MaskStatisticsInputs& in) {
  const Problem p = problem_of(in);
  return sizeof(float) * in.B * p.strips() * 2 * p.most_rows * p.most_columns;
}

cudaError_t twin_mask_statistics_forward(const MaskStatisticsInputs& in, void* workspace, float* sums, cudaStream_t stream) {
  if (is_too_large(in)) return cudaErrorInvalidValue;
  const Problem p = problem_of(in);
  float* partials = static_cast<float*>(workspace);
  const cudaError_t error = launch_items(forward_strips, in.B * p.strips(), kWarps, 0, stream, p, partials);
  if (error != cudaSuccess) return error;
  return launch_items(add_partials, in.B * kSums, kWarps, 0, stream, static_cast<const float*>(partials), sums, in.B * kSums, p.strips());
}

cudaError_t twin_mask_statistics_backward(const MaskStatisticsInputs& in, const RowView& grad_sums, void* workspace, void* grad_target,
                                     void* grad_background, cudaStream_t stream) {
  if (is_too_large(in)) return cudaErrorInvalidValue;
  const Problem p = problem_of(in);
  float* corners = static_cast<float*>(workspace);
  const cudaError_t error =
      launch_items(backward_strips, in.B * p.strips(), kWarps, kWarps * sizeof(Exchange), stream, p, grad_sums, corners);
  if (error != cudaSuccess) return error;
  switch (in.dtype) {
    case kFloat32: return launch_add_corners<float>(p, corners, grad_target, grad_background, stream);
    case kBFloat16: return launch_add_corners<__nv_bfloat16>(p, corners, grad_target, grad_background, stream);
    case kFloat16: return launch_add_corners<__half>(p, corners, grad_target, grad_background, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace rrsis_kernels
