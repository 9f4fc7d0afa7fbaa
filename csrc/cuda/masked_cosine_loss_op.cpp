// masked_cosine_forward and masked_cosine_backward on CUDA.
#include <tuple>

#include "../common/masked_cosine_inputs.h"
#include "masked_cosine_loss.h"
#include "runtime.h"

namespace rrsis_kernels {
namespace {

MaskedCosineArgs arguments(const MaskedCosineInputs& in) {
  MaskedCosineArgs a{};
  a.B = in.B, a.N = in.N, a.C = in.C;
  a.dtype = kernel_dtype(in.prediction.get(), "prediction");
  a.prediction = row_view(in.prediction.get()), a.target = row_view(in.target.get()), a.mask = row_view(in.mask.get());
  return a;
}

Tensor masked_cosine_forward_op(Tensor prediction, Tensor target, Tensor mask) {
  const MaskedCosineInputs in(prediction, target, mask);
  MaskedCosineArgs a = arguments(in);
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
  const MaskedCosineInputs in(prediction, target, mask);
  MaskedCosineArgs a = arguments(in);
  const OnDevice on(prediction);
  check_grad_loss(grad_loss, in);
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
