#include "masked_cosine_inputs.h"

namespace rrsis_kernels {

MaskedCosineInputs::MaskedCosineInputs(const Tensor& prediction_, const Tensor& target_, const Tensor& mask_)
    : prediction(prediction_), target(target_), mask(mask_) {
  check_rank(prediction_, "prediction", 3);
  B = prediction_.size(0), N = prediction_.size(1), C = prediction_.size(2);
  check_sizes(target_, "target", {B, N, C});
  check_dtype(target_, "target", prediction_.scalar_type());
  check_sizes(mask_, "mask", {B, N});
  check_dtype(mask_, "mask", ScalarType::Bool);
}

void check_grad_loss(const Tensor& grad_loss, const MaskedCosineInputs& in) {
  check_sizes(grad_loss, "grad_loss", {in.B});
  check_dtype(grad_loss, "grad_loss", statistics_dtype(in.prediction.get()));
}

}  // namespace rrsis_kernels
