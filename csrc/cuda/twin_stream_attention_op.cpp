// twin_stream_forward on CUDA; its backward runs on another backend, from the same statistics.
#include <tuple>

#include "../common/token_pixel_inputs.h"
#include "runtime.h"
#include "token_pixel_workspace.h"
#include "twin_stream_attention.h"

namespace rrsis_kernels {
namespace {

TokenPixelForward arguments(const TwinStreamInputs& in) {
  TokenPixelForward a{};
  in.describe(a);
  kernel_dtype(in.pixels.get(), "pixels");
  if (in.gate.has()) kernel_dtype(in.gate.get(), "gate");
  a.pool = true;
  a.shared_limit = shared_memory_limit(in.pixels.get());
  derive(a);
  STD_TORCH_CHECK(too_large(a) == nullptr, "too many ", too_large(a), " for one CUDA grid");
  return a;
}

std::tuple<Tensor, Tensor, Tensor> twin_stream_forward(Tensor pixels, Tensor target_queries, Tensor background_queries,
                                                       OptionalTensor gate, OptionalTensor pixel_mask) {
  const TwinStreamInputs in(pixels, target_queries, background_queries, gate, pixel_mask);
  const OnDevice on(pixels);
  Tensor target = empty({in.B, in.H, in.K, in.C}, in.dtype, pixels), background = empty({in.B, in.H, in.K, in.C}, in.dtype, pixels);
  Tensor stats = empty({in.B, 2, in.H, in.K, 2}, in.statistics, pixels);
  if (in.B == 0 || in.N == 0 || in.H == 0 || in.K == 0) {
    torch::stable::zero_(target);
    torch::stable::zero_(background);
    torch::stable::zero_(stats);
    return {target, background, stats};
  }
  TokenPixelForward a = arguments(in);
  const TokenPixelMemory memory(a, pixels);
  a.pooled[0] = target.mutable_data_ptr();
  a.pooled[1] = background.mutable_data_ptr();
  a.pool_stats = static_cast<float*>(stats.mutable_data_ptr());
  check_launch(twin_stream_attention_forward(a, on.stream()), "twin_stream_attention");
  return {target, background, stats};
}

}  // namespace
}  // namespace rrsis_kernels

RRSIS_CUDA_OPERATORS(m) { m.impl("twin_stream_forward", TORCH_BOX(&rrsis_kernels::twin_stream_forward)); }
