#include "mask_statistics_tensors.h"

namespace rrsis_kernels {

MaskStatisticsTensors::MaskStatisticsTensors(const Tensor& target_logits, const Tensor& background_logits, const Tensor& mask,
                                             const OptionalTensor& valid)
    : target_(target_logits), background_(background_logits), mask_(mask), valid_(valid) {
  const Tensor &t = target_.get(), &m = mask_.get();
  check_rank(t, "target_logits", 3);
  check_rank(m, "mask", 3);
  check_sizes(background_.get(), "background_logits", {t.size(0), t.size(1), t.size(2)});
  check_dtype(background_.get(), "background_logits", t.scalar_type());
  check_sizes(m, "mask", {t.size(0), m.size(1), m.size(2)});
  STD_TORCH_CHECK((t.size(1) > 0 && t.size(2) > 0) || m.size(1) * m.size(2) == 0, "target_logits are empty, but the mask is not");
  if (valid_.has()) {
    check_sizes(valid_.get(), "valid", {t.size(0), m.size(1), m.size(2)});
    check_dtype(valid_.get(), "valid", ScalarType::Bool);
  }
}

Held MaskStatisticsTensors::gradient_of_sums(const Tensor& grad_sums) const {
  check_sizes(grad_sums, "grad_sums", {target_.get().size(0), kSums});
  check_dtype(grad_sums, "grad_sums", statistics_dtype(target_.get()));
  return Held(grad_sums);
}

}  // namespace rrsis_kernels
