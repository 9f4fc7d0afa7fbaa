// The inputs of masked_cosine_forward and masked_cosine_backward, checked and made readable: the same on every device.
#pragma once

#include "tensors.h"

namespace rrsis_kernels {

struct MaskedCosineInputs {
  Held prediction, target, mask;
  int64_t B, N, C;

  MaskedCosineInputs(const Tensor& prediction, const Tensor& target, const Tensor& mask);
};

// The gradient of the loss, (B).
void check_grad_loss(const Tensor& grad_loss, const MaskedCosineInputs& in);

}  // namespace rrsis_kernels
