// bsc_forward and bsc_backward on the CPU: arguments checked and laid out for the tile kernels.
#include <tuple>

#include "../common/token_pixel_inputs.h"
#include "runtime.h"
#include "token_pixel_run.h"

namespace rrsis_kernels {
namespace {

TokenPixelArgs arguments(const CorrelationInputs& in, bool paint, bool pool) {
  TokenPixelArgs a{};
  in.describe(a, paint);
  a.chunks = chunk_count(in.B, in.N, in.H * in.L * in.C);
  a.paint = paint, a.pool = pool;
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bsc_forward(Tensor pixels, Tensor keys, OptionalTensor values, OptionalTensor key_bias,
                                                       OptionalTensor token_mask, OptionalTensor pixel_mask, bool paint, bool pool) {
  const CorrelationInputs in(pixels, keys, values, key_bias, token_mask, pixel_mask, paint);
  TokenPixelArgs a = arguments(in, paint, pool);
  Tensor painted = paint ? empty({in.B, in.N, in.D}, in.dtype) : empty({0}, in.dtype);
  Tensor pooled = pool ? empty({in.B, in.H, in.L, in.C}, in.dtype) : empty({0}, in.dtype);
  Tensor lse = paint ? empty({in.B, in.H, in.N}, in.statistics) : empty({0}, in.statistics);
  Tensor stats = pool ? empty({in.B, in.H, in.L, 2}, in.statistics) : empty({0}, in.statistics);
  a.painted = painted.mutable_data_ptr();
  a.pixel_lse = lse.mutable_data_ptr();
  a.pooled[0] = pooled.mutable_data_ptr();
  a.pool_stats = stats.mutable_data_ptr();
  run_forward(a);
  return {painted, pooled, lse, stats};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bsc_backward(OptionalTensor grad_painted, OptionalTensor grad_pooled,
                                                        OptionalTensor grad_lse, Tensor pixels, Tensor keys, OptionalTensor values,
                                                        OptionalTensor key_bias, OptionalTensor token_mask, OptionalTensor pixel_mask,
                                                        Tensor pooled, Tensor pool_stats, bool paint, bool pool) {
  const CorrelationInputs in(pixels, keys, values, key_bias, token_mask, pixel_mask, paint);
  const Held dpainted(grad_painted), dpooled(grad_pooled), dlse(grad_lse), y(pooled);
  const bool from_paint = paint && (dpainted.has() || dlse.has()), from_pool = pool && dpooled.has();
  TokenPixelArgs a = arguments(in, from_paint, from_pool);
  if (from_paint && dpainted.has()) {
    check_sizes(*grad_painted, "grad_painted", {in.B, in.N, in.D});
    check_dtype(*grad_painted, "grad_painted", in.dtype);
    a.grad_painted = row_view(dpainted.get());
  }
  if (from_paint && dlse.has()) {
    check_sizes(*grad_lse, "grad_pixel_lse", {in.B, in.H, in.N});
    check_dtype(*grad_lse, "grad_pixel_lse", in.statistics);
    a.grad_lse = token_view(dlse.get());
  }
  const Tensor stats = from_pool ? torch::stable::contiguous(pool_stats) : pool_stats;
  if (from_pool) {
    check_sizes(*grad_pooled, "grad_pooled", {in.B, in.H, in.L, in.C});
    check_dtype(*grad_pooled, "grad_pooled", in.dtype);
    check_sizes(pooled, "pooled", {in.B, in.H, in.L, in.C});
    check_sizes(pool_stats, "pool_stats", {in.B, in.H, in.L, 2});
    check_dtype(pool_stats, "pool_stats", in.statistics);
    a.grad_pooled[0] = token_view(dpooled.get());
    a.pooled_view[0] = token_view(y.get());
    a.pool_stats = stats.mutable_data_ptr();
  }
  const bool any = from_paint || from_pool;
  Tensor dx = any ? empty({in.B, in.N, in.C}, in.dtype) : zeros({in.B, in.N, in.C}, in.dtype);
  Tensor dk = any ? empty({in.B, in.H, in.L, in.C}, in.dtype) : zeros({in.B, in.H, in.L, in.C}, in.dtype);
  Tensor dv = !in.values.has() ? empty({0}, in.dtype)
              : from_paint     ? empty({in.B, in.H, in.L, in.D}, in.dtype)
                               : zeros({in.B, in.H, in.L, in.D}, in.dtype);
  Tensor db = from_paint ? empty({in.B, in.H, in.L}, in.dtype) : zeros({in.B, in.H, in.L}, in.dtype);
  a.grad_pixels = dx.mutable_data_ptr();
  a.grad_keys[0] = dk.mutable_data_ptr();
  a.grad_values = dv.mutable_data_ptr();
  a.grad_key_bias = db.mutable_data_ptr();
  if (any) run_backward(a);
  return {dx, dk, dv, db};
}

}  // namespace
}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CPU, m) {
  m.impl("bsc_forward", TORCH_BOX(&rrsis_kernels::bsc_forward));
  m.impl("bsc_backward", TORCH_BOX(&rrsis_kernels::bsc_backward));
}
