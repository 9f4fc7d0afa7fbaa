// The tensors of mask_statistics_forward and _backward, as both devices take them.
#pragma once

#include "tensors.h"

namespace rrsis_kernels {

// Checked, readable, and alive as long as the views into them are used.
class MaskStatisticsTensors {
 public:
  static constexpr int64_t kSums = 9;  // per sample

  MaskStatisticsTensors(const Tensor& target_logits, const Tensor& background_logits, const Tensor& mask, const OptionalTensor& valid);

  // Sizes, dtypes and views, under the names that the kernels of either device have for them.
  template <class Inputs>
  void describe(Inputs& in) const {
    const Tensor &t = target_.get(), &m = mask_.get();
    in.B = t.size(0), in.h = t.size(1), in.w = t.size(2), in.Hm = m.size(1), in.Wm = m.size(2);
    in.dtype = dtype_code(t, "target_logits");
    in.mask_dtype = mask_dtype_code(m, "mask");
    in.target = row_view(t), in.background = row_view(background_.get()), in.mask = row_view(m);
    if (valid_.has()) in.valid = row_view(valid_.get());
  }

  // The sums' gradient, checked against them.
  Held gradient_of_sums(const Tensor& grad_sums) const;

 private:
  Held target_, background_, mask_, valid_;
};

}  // namespace rrsis_kernels
