// mask_statistics_forward and mask_statistics_backward on CUDA.
#include <tuple>

#include "../common/mask_statistics_tensors.h"
#include "runtime.h"
#include "twin_mask_statistics.h"

namespace rrsis_kernels {
namespace {

static_assert(kMaskStatisticsSums == MaskStatisticsTensors::kSums);

MaskStatisticsInputs inputs_of(const MaskStatisticsTensors& tensors, double joint_scale) {
  MaskStatisticsInputs in{};
  tensors.describe(in);
  in.joint_scale = static_cast<float>(joint_scale);
  return in;
}

Tensor mask_statistics_forward(Tensor target_logits, Tensor background_logits, Tensor mask, OptionalTensor valid, double joint_scale) {
  const MaskStatisticsTensors tensors(target_logits, background_logits, mask, valid);
  const MaskStatisticsInputs in = inputs_of(tensors, joint_scale);
  const OnDevice on(target_logits);
  Tensor sums = empty({in.B, kMaskStatisticsSums}, ScalarType::Float, target_logits);
  const Tensor partials = workspace(static_cast<int64_t>(twin_mask_statistics_forward_workspace(in)), target_logits);
  check_launch(twin_mask_statistics_forward(in, partials.mutable_data_ptr(), static_cast<float*>(sums.mutable_data_ptr()), on.stream()),
               "mask_statistics_forward");
  return sums;
}

std::tuple<Tensor, Tensor> mask_statistics_backward(Tensor grad_sums, Tensor target_logits, Tensor background_logits, Tensor mask,
                                                    OptionalTensor valid, double joint_scale) {
  const MaskStatisticsTensors tensors(target_logits, background_logits, mask, valid);
  const MaskStatisticsInputs in = inputs_of(tensors, joint_scale);
  const Held grads = tensors.gradient_of_sums(grad_sums);
  const OnDevice on(target_logits);
  Tensor grad_target = empty({in.B, in.h, in.w}, target_logits.scalar_type(), target_logits);
  Tensor grad_background = empty({in.B, in.h, in.w}, target_logits.scalar_type(), target_logits);
  const Tensor corners = workspace(static_cast<int64_t>(twin_mask_statistics_backward_workspace(in)), target_logits);
  check_launch(twin_mask_statistics_backward(in, row_view(grads.get()), corners.mutable_data_ptr(), grad_target.mutable_data_ptr(),
                                        grad_background.mutable_data_ptr(), on.stream()),
               "mask_statistics_backward");
  return {grad_target, grad_background};
}

}  // namespace
}  // namespace rrsis_kernels

RRSIS_CUDA_OPERATORS(m) {
  m.impl("mask_statistics_forward", TORCH_BOX(&rrsis_kernels::mask_statistics_forward));
  m.impl("mask_statistics_backward", TORCH_BOX(&rrsis_kernels::mask_statistics_backward));
}
