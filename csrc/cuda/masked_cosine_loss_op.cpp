// masked_cosine_forward and masked_cosine_backward on CUDA.
#include <tuple>

#include "masked_cosine_loss.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

MaskedCosineArgs arguments(const Held& prediction, const Held& target, const Held& mask) {
  const Tensor &x = prediction.get(), &y = target.get(), &m = mask.get();
  check_rank(x, "prediction", 3);
  MaskedCosineArgs a{};
  a.B = x.size(0), a.N = x.size(1), a.C = x.size(2);
  a.dtype = kernel_dtype(x, "prediction");
  check_sizes(y, "target", {a.B, a.N, a.C});
  check_dtype(y, "target", x.scalar_type());
  check_sizes(m, "mask", {a.B, a.N});
  check_dtype(m, "mask", ScalarType::Bool);
  a.prediction = row_view(x), a.target = row_view(y), a.mask = row_view(m);
  return a;
}

Tensor masked_cosine_forward_op(Tensor prediction, Tensor target, Tensor mask) {
  const Held x{prediction}, y{target}, m{mask};
  MaskedCosineArgs a = arguments(x, y, m);
  const OnDevice on(prediction);
  const int64_t parts = masked_cosine_forward_parts(a.N);
  Tensor loss = empty({a.B}, ScalarType::Float, prediction), sums = empty({a.B, parts}, ScalarType::Float, prediction);
  Tensor counts = empty({a.B, parts}, ScalarType::Int, prediction);
  a.loss = static_cast<float*>(loss.mutable_data_ptr());
  a.part_sums = static_cast<float*>(sums.mutable_data_ptr());
  a.part_counts = static_cast<int32_t*>(counts.mutable_data_ptr());
  check_launch(masked_cosine_forward(a, on.stream()), "masked_cosine_forward");
  return loss;
}

std::tuple<Tensor, Tensor> masked_cosine_backward_op(Tensor grad_loss, Tensor prediction, Tensor target, Tensor mask) {
  const Held x{prediction}, y{target}, m{mask};
  MaskedCosineArgs a = arguments(x, y, m);
  const OnDevice on(prediction);
  check_sizes(grad_loss, "grad_loss", {a.B});
  check_dtype(grad_loss, "grad_loss", ScalarType::Float);
  Tensor dx = empty({a.B, a.N, a.C}, prediction.scalar_type(), prediction);
  Tensor dy = empty({a.B, a.N, a.C}, prediction.scalar_type(), prediction);
  if (dx.numel() == 0) return {dx, dy};
  Tensor counts = empty({a.B, masked_cosine_backward_parts(a.N)}, ScalarType::Int, prediction);
  a.part_counts = static_cast<int32_t*>(counts.mutable_data_ptr());
  a.grad_loss = static_cast<const float*>(grad_loss.const_data_ptr()), a.grad_loss_stride = grad_loss.stride(0);
  a.grad_prediction = dx.mutable_data_ptr(), a.grad_target = dy.mutable_data_ptr();
  check_launch(masked_cosine_backward(a, on.stream()), "masked_cosine_backward");
  return {dx, dy};
}

}  // namespace
}  // namespace rrsis_kernels

RRSIS_CUDA_OPERATORS(m) {
  m.impl("masked_cosine_forward", TORCH_BOX(&rrsis_kernels::masked_cosine_forward_op));
  m.impl("masked_cosine_backward", TORCH_BOX(&rrsis_kernels::masked_cosine_backward_op));
}
