#include "token_pixel_inputs.h"

namespace rrsis_kernels {
namespace {

void check_mask(const OptionalTensor& mask, const char* name, int64_t samples, int64_t size) {
  if (!mask.has_value()) return;
  check_sizes(*mask, name, {samples, size});
  check_dtype(*mask, name, ScalarType::Bool);
}

}  // namespace

CorrelationInputs::CorrelationInputs(const Tensor& pixels_, const Tensor& keys_, const OptionalTensor& values_,
                                     const OptionalTensor& key_bias_, const OptionalTensor& token_mask_,
                                     const OptionalTensor& pixel_mask_, bool paint)
    : pixels(pixels_), keys(keys_), values(values_), key_bias(key_bias_), token_mask(token_mask_), pixel_mask(pixel_mask_),
      dtype(pixels_.scalar_type()), statistics(statistics_dtype(pixels_)) {
  dtype_code(pixels_, "pixels");
  check_rank(pixels_, "pixels", 3);
  check_rank(keys_, "keys", 4);
  B = pixels_.size(0), N = pixels_.size(1), C = pixels_.size(2), H = keys_.size(1), L = keys_.size(2), D = 0;
  check_sizes(keys_, "keys", {B, H, L, C});
  check_dtype(keys_, "keys", dtype);
  STD_TORCH_CHECK(values.has() || !paint, "values are due when painting");
  if (values.has()) {
    check_rank(*values_, "values", 4);
    D = values_->size(3);
    check_sizes(*values_, "values", {B, H, L, D});
    check_dtype(*values_, "values", dtype);
  }
  if (key_bias.has()) {
    check_sizes(*key_bias_, "key_bias", {B, H, L});
    check_dtype(*key_bias_, "key_bias", dtype);
  }
  check_mask(token_mask_, "token_mask", B, L);
  check_mask(pixel_mask_, "pixel_mask", B, N);
}

void CorrelationInputs::describe(TokenPixelViews& a, bool paint) const {
  a.B = B, a.N = N, a.C = C, a.D = paint ? D : 0, a.H = H, a.L = L;
  a.banks = 1, a.bank_heads = H > 0 ? H : 1;
  a.dtype = dtype_code(pixels.get(), "pixels");
  a.pixels = row_view(pixels.get());
  a.keys[0] = token_view(keys.get());
  if (paint) a.values = token_view(values.get());
  if (key_bias.has()) a.key_bias = token_view(key_bias.get());
  if (token_mask.has()) a.token_mask = row_view(token_mask.get());
  if (pixel_mask.has()) a.pixel_mask = row_view(pixel_mask.get());
}

TwinStreamInputs::TwinStreamInputs(const Tensor& pixels_, const Tensor& target_, const Tensor& background_, const OptionalTensor& gate_,
                                   const OptionalTensor& pixel_mask_)
    : pixels(pixels_), target(target_), background(background_), gate(gate_), pixel_mask(pixel_mask_),
      dtype(pixels_.scalar_type()), statistics(statistics_dtype(pixels_)) {
  dtype_code(pixels_, "pixels");
  check_rank(pixels_, "pixels", 3);
  check_rank(target_, "target_queries", 4);
  B = pixels_.size(0), N = pixels_.size(1), C = pixels_.size(2), H = target_.size(1), K = target_.size(2);
  check_sizes(target_, "target_queries", {B, H, K, C});
  check_sizes(background_, "background_queries", {B, H, K, C});
  check_dtype(target_, "target_queries", dtype);
  check_dtype(background_, "background_queries", dtype);
  if (gate.has()) {
    check_sizes(*gate_, "gate", {B, N});
    dtype_code(*gate_, "gate");
  }
  check_mask(pixel_mask_, "pixel_mask", B, N);
}

void TwinStreamInputs::describe(TokenPixelViews& a) const {
  a.B = B, a.N = N, a.C = C, a.D = 0, a.H = 2 * H, a.L = K;
  a.banks = 2, a.bank_heads = H > 0 ? H : 1;
  a.dtype = dtype_code(pixels.get(), "pixels");
  a.pixels = row_view(pixels.get());
  a.keys[0] = token_view(target.get());
  a.keys[1] = token_view(background.get());
  if (gate.has()) {
    a.gate = row_view(gate.get());
    a.gate_dtype = dtype_code(gate.get(), "gate");
  }
  if (pixel_mask.has()) a.pixel_mask = row_view(pixel_mask.get());
}

}  // namespace rrsis_kernels
