// The inputs of the two token-pixel operators, checked and made readable: the same on every device.
#pragma once

#include "tensors.h"
#include "token_pixel_views.h"

namespace rrsis_kernels {

// What bsc_forward and bsc_backward take.
struct CorrelationInputs {
  Held pixels, keys, values, key_bias, token_mask, pixel_mask;
  ScalarType dtype, statistics;
  int64_t B, N, C, H, L, D;

  CorrelationInputs(const Tensor& pixels, const Tensor& keys, const OptionalTensor& values, const OptionalTensor& key_bias,
                    const OptionalTensor& token_mask, const OptionalTensor& pixel_mask, bool paint);

  // Sizes, dtype and views; of the values only where they paint.
  void describe(TokenPixelViews& a, bool paint) const;
};

// What twin_stream_forward and twin_stream_backward take.
struct TwinStreamInputs {
  Held pixels, target, background, gate, pixel_mask;
  ScalarType dtype, statistics;
  int64_t B, N, C, H, K;

  TwinStreamInputs(const Tensor& pixels, const Tensor& target, const Tensor& background, const OptionalTensor& gate,
                   const OptionalTensor& pixel_mask);

  // Sizes, dtypes and views, the target's queries in the first bank.
  void describe(TokenPixelViews& a) const;
};

}  // namespace rrsis_kernels
