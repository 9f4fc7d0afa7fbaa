// masked_cosine_forward and masked_cosine_backward on the CPU.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/masked_cosine_inputs.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

constexpr int64_t kChunkRows = 256;

MaskedCosineArgs arguments(const MaskedCosineInputs& in) {
  MaskedCosineArgs a{};
  a.B = in.B, a.N = in.N, a.C = in.C;
  a.chunks = std::max<int64_t>(1, a.N / kChunkRows);
  a.dtype = dtype_code(in.prediction.get(), "prediction");
  a.prediction = row_view(in.prediction.get()), a.target = row_view(in.target.get()), a.mask = row_view(in.mask.get());
  return a;
}

int64_t masked_rows(const MaskedCosineArgs& a, int64_t sample) {
  const uint8_t* mask = static_cast<const uint8_t*>(a.mask.data) + sample * a.mask.batch;
  int64_t rows = 0;
  for (int64_t n = 0; n < a.N; ++n) rows += mask[n] != 0;
  return rows;
}

Tensor masked_cosine_forward(Tensor prediction, Tensor target, Tensor mask) {
  const MaskedCosineInputs in(prediction, target, mask);
  MaskedCosineArgs a = arguments(in);
  Tensor loss = empty({a.B}, statistics_dtype(prediction));
  std::vector<double> sums(a.B * a.chunks * 2);
  a.chunk_sums = sums.data();
  const KernelTable& k = kernels(a.dtype);
  parallel(a.B * a.chunks, 6.0 * a.C * a.N / a.chunks, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) k.masked_cosine_forward(a, u / a.chunks, u % a.chunks);
  });
  for (int64_t b = 0; b < a.B; ++b) {
    double sum = 0, rows = 0;
    for (int64_t i = 0; i < a.chunks; ++i) sum += sums[(b * a.chunks + i) * 2], rows += sums[(b * a.chunks + i) * 2 + 1];
    const double mean = rows > 0 ? sum / rows : 0;
    if (a.dtype == kFloat64) {
      static_cast<double*>(loss.mutable_data_ptr())[b] = mean;
    } else {
      static_cast<float*>(loss.mutable_data_ptr())[b] = static_cast<float>(mean);
    }
  }
  return loss;
}

std::tuple<Tensor, Tensor> masked_cosine_backward(Tensor grad_loss, Tensor prediction, Tensor target, Tensor mask) {
  const MaskedCosineInputs in(prediction, target, mask);
  MaskedCosineArgs a = arguments(in);
  check_grad_loss(grad_loss, in);
  const int64_t stride = grad_loss.stride(0);
  const void* grad = grad_loss.const_data_ptr();
  std::vector<double> scale(a.B);
  for (int64_t b = 0; b < a.B; ++b) {
    const double g = a.dtype == kFloat64 ? static_cast<const double*>(grad)[b * stride] : static_cast<const float*>(grad)[b * stride];
    const int64_t rows = masked_rows(a, b);
    scale[b] = rows > 0 ? g / static_cast<double>(rows) : 0;
  }
  a.row_scale = scale.data();
  Tensor dx = empty({a.B, a.N, a.C}, prediction.scalar_type()), dy = empty({a.B, a.N, a.C}, prediction.scalar_type());
  a.grad_prediction = dx.mutable_data_ptr();
  a.grad_target = dy.mutable_data_ptr();
  const KernelTable& k = kernels(a.dtype);
  parallel(a.B * a.chunks, 12.0 * a.C * a.N / a.chunks, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) k.masked_cosine_backward(a, u / a.chunks, u % a.chunks);
  });
  return {dx, dy};
}

}  // namespace
}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CPU, m) {
  m.impl("masked_cosine_forward", TORCH_BOX(&rrsis_kernels::masked_cosine_forward));
  m.impl("masked_cosine_backward", TORCH_BOX(&rrsis_kernels::masked_cosine_backward));
}
