#include <algorithm>
#include <memory>
#include <numeric>

#include "driver.h"

namespace driver {
namespace {

using namespace rrsis_kernels;

constexpr int64_t kColumns = 9;

// A checkerboard of squares of `period`.
std::vector<uint8_t> checkerboard(int64_t rows, int64_t columns, int64_t period) {
  std::vector<uint8_t> mask(rows * columns);
  for (int64_t i = 0; i < rows * columns; ++i) mask[i] = (i / columns / period + i % columns / period) % 2;
  return mask;
}

struct Maps {
  Array target, background, grad_sums;
  std::vector<uint8_t> mask;
  std::vector<int32_t> lo, hi, first;
  std::vector<float> weight, band_grads;
  std::vector<double> band_sums;
  std::vector<char> memory;
  MaskStatisticsArgs a{};

  Maps(const KernelTable& k, int dtype, int64_t side, int64_t mask_side)
      : target(side * side, dtype, 1), background(side * side, dtype, 2), grad_sums(kColumns, kFloat32, 3),
        mask(checkerboard(mask_side, mask_side, 8)), lo(mask_side), hi(mask_side), first(side + 1), weight(mask_side) {
    for (int64_t i = 0; i < mask_side; ++i) {
      const float source = std::max(0.f, (i + 0.5f) * side / mask_side - 0.5f);
      lo[i] = static_cast<int32_t>(source), hi[i] = std::min<int32_t>(lo[i] + 1, static_cast<int32_t>(side) - 1), weight[i] = source - lo[i];
    }
    for (int64_t x = 0; x <= side; ++x)
      first[x] = static_cast<int32_t>(std::lower_bound(lo.begin(), lo.end(), static_cast<int32_t>(x)) - lo.begin());
    a.B = 1, a.h = a.w = side, a.Hm = a.Wm = mask_side, a.bands = std::max<int64_t>(1, mask_side / 16);
    a.dtype = dtype, a.mask_dtype = kUInt8, a.joint_scale = 0.5;
    a.target = {target.data(), side * side, side}, a.background = {background.data(), side * side, side};
    a.mask = {mask.data(), mask_side * mask_side, mask_side};
    a.x_lo = a.y_lo = lo.data(), a.x_hi = a.y_hi = hi.data(), a.x_first = first.data(), a.x_weight = a.y_weight = weight.data();
    a.grad_sums = {grad_sums.data(), kColumns, 1};
    a.band_grad_rows = side;
    band_sums.resize(a.bands * kColumns), band_grads.resize(a.bands * 2 * side * side);
    a.band_sums = band_sums.data(), a.band_grads = band_grads.data();
    memory.resize(k.mask_statistics_thread_bytes(a));
  }
};

struct Rows {
  Array prediction, target, grad_prediction, grad_target;
  std::vector<uint8_t> mask;
  double sums[2] = {}, scale = 0.25;
  MaskedCosineArgs a{};

  Rows(int dtype, int64_t N, int64_t C)
      : prediction(N * C, dtype, 1), target(N * C, dtype, 2), grad_prediction(N * C, dtype, 3), grad_target(N * C, dtype, 4),
        mask(checkerboard(1, N, 8)) {
    a.B = 1, a.N = N, a.C = C, a.chunks = 1, a.dtype = dtype;
    a.prediction = {prediction.data(), N * C, C}, a.target = {target.data(), N * C, C}, a.mask = {mask.data(), N, 1};
    a.chunk_sums = sums, a.row_scale = &scale;
    a.grad_prediction = grad_prediction.data(), a.grad_target = grad_target.data();
  }
};

}  // namespace

Problem mask_statistics(const KernelTable& k, bool backward, int dtype, const std::vector<int64_t>& sizes) {
  const auto maps = std::make_shared<Maps>(k, dtype, sizes[0], sizes[1]);
  const auto kernel = backward ? k.mask_statistics_backward : k.mask_statistics_forward;
  return {[=] {
            for (int64_t i = 0; i < maps->a.bands; ++i) kernel(maps->a, 0, i, maps->memory.data());
          },
          [=] {
            return std::accumulate(maps->band_sums.begin(), maps->band_sums.end(), 0.0) +
                   std::accumulate(maps->band_grads.begin(), maps->band_grads.end(), 0.0);
          }};
}

Problem masked_cosine(const KernelTable& k, bool backward, int dtype, const std::vector<int64_t>& sizes) {
  const auto rows = std::make_shared<Rows>(dtype, sizes[0], sizes[1]);
  const auto kernel = backward ? k.masked_cosine_backward : k.masked_cosine_forward;
  return {[=] { kernel(rows->a, 0, 0); },
          [=] { return rows->sums[0] + rows->grad_prediction.sum() + rows->grad_target.sum(); }};
}

}  // namespace driver
