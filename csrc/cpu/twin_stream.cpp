// twin_stream_forward and twin_stream_backward on the CPU: a pool over the rows of two banks of queries.
#include <tuple>

#include "../common/token_pixel_inputs.h"
#include "runtime.h"
#include "token_pixel_run.h"

namespace rrsis_kernels {
namespace {

TokenPixelArgs arguments(const TwinStreamInputs& in) {
  TokenPixelArgs a{};
  in.describe(a);
  a.chunks = chunk_count(in.B, in.N, 2 * in.H * in.K * in.C);
  a.paint = 0, a.pool = 1;
  return a;
}

std::tuple<Tensor, Tensor, Tensor> twin_stream_forward(Tensor pixels, Tensor target_queries, Tensor background_queries,
                                                       OptionalTensor gate, OptionalTensor pixel_mask) {
  const TwinStreamInputs in(pixels, target_queries, background_queries, gate, pixel_mask);
  TokenPixelArgs a = arguments(in);
  Tensor target = empty({in.B, in.H, in.K, in.C}, in.dtype), background = empty({in.B, in.H, in.K, in.C}, in.dtype);
  Tensor stats = empty({in.B, 2, in.H, in.K, 2}, in.statistics);
  a.pooled[0] = target.mutable_data_ptr();
  a.pooled[1] = background.mutable_data_ptr();
  a.pool_stats = stats.mutable_data_ptr();
  run_forward(a);
  return {target, background, stats};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> twin_stream_backward(OptionalTensor grad_target, OptionalTensor grad_background,
                                                                Tensor pixels, Tensor target_queries, Tensor background_queries,
                                                                OptionalTensor gate, OptionalTensor pixel_mask, Tensor target,
                                                                Tensor background, Tensor pool_stats) {
  const TwinStreamInputs in(pixels, target_queries, background_queries, gate, pixel_mask);
  const Held grads[2] = {Held(grad_target), Held(grad_background)}, outputs[2] = {Held(target), Held(background)};
  const char* grad_names[2] = {"grad_target", "grad_background"};
  const char* names[2] = {"target", "background"};
  TokenPixelArgs a = arguments(in);
  for (int i = 0; i < 2; ++i) {
    check_sizes(outputs[i].get(), names[i], {in.B, in.H, in.K, in.C});
    check_dtype(outputs[i].get(), names[i], in.dtype);
    a.pooled_view[i] = token_view(outputs[i].get());
    if (!grads[i].has()) continue;
    check_sizes(grads[i].get(), grad_names[i], {in.B, in.H, in.K, in.C});
    check_dtype(grads[i].get(), grad_names[i], in.dtype);
    a.grad_pooled[i] = token_view(grads[i].get());
  }
  check_sizes(pool_stats, "pool_stats", {in.B, 2, in.H, in.K, 2});
  check_dtype(pool_stats, "pool_stats", in.statistics);
  const Tensor stats = torch::stable::contiguous(pool_stats);
  a.pool_stats = stats.mutable_data_ptr();
  const ScalarType gate_dtype = in.gate.has() ? in.gate.get().scalar_type() : in.dtype;
  Tensor dx = empty({in.B, in.N, in.C}, in.dtype);
  Tensor dt = empty({in.B, in.H, in.K, in.C}, in.dtype), db = empty({in.B, in.H, in.K, in.C}, in.dtype);
  Tensor dg = in.gate.has() ? empty({in.B, in.N}, gate_dtype) : empty({0}, gate_dtype);
  a.grad_pixels = dx.mutable_data_ptr();
  a.grad_keys[0] = dt.mutable_data_ptr();
  a.grad_keys[1] = db.mutable_data_ptr();
  a.grad_gate = dg.mutable_data_ptr();
  run_backward(a);
  return {dx, dt, db, dg};
}

}  // namespace
}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY_IMPL(rrsis_kernels, CPU, m) {
  m.impl("twin_stream_forward", TORCH_BOX(&rrsis_kernels::twin_stream_forward));
  m.impl("twin_stream_backward", TORCH_BOX(&rrsis_kernels::twin_stream_backward));
}
