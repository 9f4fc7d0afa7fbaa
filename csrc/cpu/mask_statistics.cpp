// mask_statistics_forward and mask_statistics_backward on the CPU: interpolation tables, row bands, and their combination.
#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "../common/mask_statistics_tensors.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

constexpr int64_t kColumns = MaskStatisticsTensors::kSums;
constexpr int64_t kBandRows = 16;

// Where F.interpolate(mode="bilinear", align_corners=False) reads each output index, in its own arithmetic: the indices
// and weights are computed in the dtype that PyTorch computes in (float unless the maps are double).
template <class T>
struct Axis {
  std::vector<int32_t> lo, hi, first;
  std::vector<T> weight;
  Axis(int64_t in, int64_t out) : lo(out), hi(out), first(in + 1), weight(out) {
    const T ratio = out > 0 ? static_cast<T>(in) / static_cast<T>(out) : 0;
    for (int64_t i = 0; i < out; ++i) {
      if (in == out) {
        lo[i] = hi[i] = static_cast<int32_t>(i);
        weight[i] = 0;
        continue;
      }
      const T exact = ratio * (static_cast<T>(i) + static_cast<T>(0.5)) - static_cast<T>(0.5);
      const T source = exact < 0 ? 0 : exact;
      lo[i] = static_cast<int32_t>(std::min(static_cast<int64_t>(source), in - 1));
      hi[i] = lo[i] + (lo[i] < in - 1 ? 1 : 0);
      weight[i] = std::min(std::max(source - static_cast<T>(lo[i]), static_cast<T>(0)), static_cast<T>(1));
    }
    int64_t i = 0;
    for (int64_t k = 0; k <= in; ++k) {
      while (i < out && lo[i] < k) ++i;
      first[k] = static_cast<int32_t>(i);
    }
  }
};

MaskStatisticsArgs args_of(const MaskStatisticsTensors& tensors, double joint_scale) {
  MaskStatisticsArgs a{};
  tensors.describe(a);
  a.joint_scale = joint_scale;
  a.bands = std::max<int64_t>(1, a.Hm / kBandRows);
  return a;
}

template <class T>
void set_axes(MaskStatisticsArgs& a, const Axis<T>& x, const Axis<T>& y) {
  a.x_lo = x.lo.data(), a.x_hi = x.hi.data(), a.x_first = x.first.data(), a.x_weight = x.weight.data();
  a.y_lo = y.lo.data(), a.y_hi = y.hi.data(), a.y_weight = y.weight.data();
}

template <class T>
Tensor forward(MaskStatisticsArgs& a, const Tensor& like) {
  const Axis<T> x(a.w, a.Wm), y(a.h, a.Hm);
  set_axes(a, x, y);
  std::vector<double> bands(a.B * a.bands * kColumns);
  a.band_sums = bands.data();
  const KernelTable& k = kernels(a.dtype);
  const size_t bytes = k.mask_statistics_thread_bytes(a);
  parallel(a.B * a.bands, 200.0 * a.Wm * a.Hm / a.bands, [&](int64_t begin, int64_t end) {
    char* memory = thread_scratch(bytes);
    for (int64_t u = begin; u < end; ++u) k.mask_statistics_forward(a, u / a.bands, u % a.bands, memory);
  });
  Tensor sums = empty({a.B, kColumns}, statistics_dtype(like));
  T* out = static_cast<T*>(sums.mutable_data_ptr());
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t c = 0; c < kColumns; ++c) {
      double total = 0;
      for (int64_t i = 0; i < a.bands; ++i) total += bands[(b * a.bands + i) * kColumns + c];
      out[b * kColumns + c] = static_cast<T>(total);
    }
  return sums;
}

// Adds the bands of one sample, in their order, to the low-resolution rows that each of them touched.
template <class T>
void combine_bands(const MaskStatisticsArgs& a, int64_t sample, int map, T* total) {
  const int64_t size = a.band_grad_rows * a.w;
  std::memset(total, 0, a.h * a.w * sizeof(T));
  for (int64_t i = 0; i < a.bands; ++i) {
    const int64_t begin = a.Hm * i / a.bands, end = a.Hm * (i + 1) / a.bands;
    if (begin == end) continue;
    const T* from = static_cast<const T*>(a.band_grads) + ((sample * a.bands + i) * 2 + map) * size;
    const int64_t first = a.y_lo[begin], rows = a.y_hi[end - 1] - first + 1;
    for (int64_t j = 0; j < rows * a.w; ++j) total[first * a.w + j] += from[j];
  }
}

template <class T>
std::tuple<Tensor, Tensor> backward(MaskStatisticsArgs& a, const Tensor& like) {
  const Axis<T> x(a.w, a.Wm), y(a.h, a.Hm);
  set_axes(a, x, y);
  for (int64_t i = 0; i < a.bands; ++i) {
    const int64_t begin = a.Hm * i / a.bands, end = a.Hm * (i + 1) / a.bands;
    if (begin < end) a.band_grad_rows = std::max<int64_t>(a.band_grad_rows, y.hi[end - 1] - y.lo[begin] + 1);
  }
  const KernelTable& k = kernels(a.dtype);
  const size_t bytes = k.mask_statistics_thread_bytes(a);
  a.band_grads = shared_scratch(a.B * a.bands * 2 * a.band_grad_rows * a.w * sizeof(T));
  parallel(a.B * a.bands, 250.0 * a.Wm * a.Hm / a.bands, [&](int64_t begin, int64_t end) {
    char* memory = thread_scratch(bytes);
    for (int64_t u = begin; u < end; ++u) k.mask_statistics_backward(a, u / a.bands, u % a.bands, memory);
  });
  Tensor grads[2] = {empty({a.B, a.h, a.w}, statistics_dtype(like)), empty({a.B, a.h, a.w}, statistics_dtype(like))};
  parallel(a.B, 4.0 * a.h * a.w, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int map = 0; map < 2; ++map)
        combine_bands<T>(a, b, map, static_cast<T*>(grads[map].mutable_data_ptr()) + b * a.h * a.w);
  });
  release_large_scratch();
  if (like.scalar_type() == statistics_dtype(like)) return {grads[0], grads[1]};
  return {torch::stable::to(grads[0], like.scalar_type()), torch::stable::to(grads[1], like.scalar_type())};
}

Tensor mask_statistics_forward(Tensor target_logits, Tensor background_logits, Tensor mask, OptionalTensor valid, double joint_scale) {
  const MaskStatisticsTensors tensors(target_logits, background_logits, mask, valid);
  MaskStatisticsArgs a = args_of(tensors, joint_scale);
  return a.dtype == kFloat64 ? forward<double>(a, target_logits) : forward<float>(a, target_logits);
}

std::tuple<Tensor, Tensor> mask_statistics_backward(Tensor grad_sums, Tensor target_logits, Tensor background_logits, Tensor mask,
                                                    OptionalTensor valid, double joint_scale) {
  const MaskStatisticsTensors tensors(target_logits, background_logits, mask, valid);
  MaskStatisticsArgs a = args_of(tensors, joint_scale);
  const Held sums = tensors.gradient_of_sums(grad_sums);
  a.grad_sums = row_view(sums.get());
  return a.dtype == kFloat64 ? backward<double>(a, target_logits) : backward<float>(a, target_logits);
}

}  // namespace
}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CPU, m) {
  m.impl("mask_statistics_forward", TORCH_BOX(&rrsis_kernels::mask_statistics_forward));
  m.impl("mask_statistics_backward", TORCH_BOX(&rrsis_kernels::mask_statistics_backward));
}
