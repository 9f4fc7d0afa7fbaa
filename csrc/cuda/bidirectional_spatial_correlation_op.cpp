// bsc_forward on CUDA; its backward runs on another backend, from the same statistics.
#include <limits>
#include <tuple>

#include "../common/token_pixel_inputs.h"
#include "bidirectional_spatial_correlation.h"
#include "runtime.h"
#include "token_pixel_workspace.h"

namespace rrsis_kernels {
namespace {

TokenPixelForward arguments(const CorrelationInputs& in, bool paint, bool pool) {
  TokenPixelForward a{};
  in.describe(a, paint);
  kernel_dtype(in.pixels.get(), "pixels");
  a.paint = paint, a.pool = pool;
  a.shared_limit = shared_memory_limit(in.pixels.get());
  derive(a);
  STD_TORCH_CHECK(too_large(a) == nullptr, "too many ", too_large(a), " for one CUDA grid");
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bsc_forward(Tensor pixels, Tensor keys, OptionalTensor values, OptionalTensor key_bias,
                                                       OptionalTensor token_mask, OptionalTensor pixel_mask, bool paint, bool pool) {
  const CorrelationInputs in(pixels, keys, values, key_bias, token_mask, pixel_mask, paint);
  const OnDevice on(pixels);
  Tensor painted = paint ? empty({in.B, in.N, in.D}, in.dtype, pixels) : empty({0}, in.dtype, pixels);
  Tensor pooled = pool ? empty({in.B, in.H, in.L, in.C}, in.dtype, pixels) : empty({0}, in.dtype, pixels);
  Tensor lse = paint ? empty({in.B, in.H, in.N}, in.statistics, pixels) : empty({0}, in.statistics, pixels);
  Tensor stats = pool ? empty({in.B, in.H, in.L, 2}, in.statistics, pixels) : empty({0}, in.statistics, pixels);
  const bool pixels_and_tokens = in.B > 0 && in.N > 0 && in.H > 0 && in.L > 0;
  if (!pixels_and_tokens || !(paint || pool)) {  // nothing to paint with, or nothing to pool
    torch::stable::zero_(painted);
    torch::stable::zero_(pooled);
    torch::stable::fill_(lse, -std::numeric_limits<double>::infinity());
    torch::stable::zero_(stats);
    return {painted, pooled, lse, stats};
  }
  TokenPixelForward a = arguments(in, paint, pool);
  const TokenPixelMemory memory(a, pixels);
  a.painted = painted.mutable_data_ptr();
  a.pooled[0] = pooled.mutable_data_ptr();
  a.pixel_lse = static_cast<float*>(lse.mutable_data_ptr());
  a.pool_stats = static_cast<float*>(stats.mutable_data_ptr());
  check_launch(bidirectional_spatial_correlation_forward(a, on.stream()), "bidirectional_spatial_correlation");
  return {painted, pooled, lse, stats};
}

}  // namespace
}  // namespace rrsis_kernels

RRSIS_CUDA_OPERATORS(m) { m.impl("bsc_forward", TORCH_BOX(&rrsis_kernels::bsc_forward)); }
