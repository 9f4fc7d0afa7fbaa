// What masked_cosine_loss_op.cpp says to the kernels in masked_cosine_loss.cu.
#pragma once

#include <driver_types.h>
#include <stdint.h>

#include "../common/views.h"

namespace rrsis_kernels {

struct MaskedCosineArgs {
  int64_t B, N, C;
  int dtype;                // of inputs and gradients: kFloat32, kBFloat16 or kFloat16
  RowView prediction, target;
  RowView mask;             // (B, N) bool: `row` is the stride of n
  int32_t* part_counts;     // working memory: (B, parts) counted rows
  // Forward.
  float* part_sums;         // working memory: (B, parts) sums of 1 - cos
  float* loss;              // (B)
  // Backward, for B, N and C above 0.
  const float* grad_loss;   // (B), `grad_loss_stride` apart
  int64_t grad_loss_stride;
  void *grad_prediction, *grad_target;  // (B, N, C), contiguous
};

// Parts of a sample, a function of N alone: what makes the order of every sum the same.
int64_t masked_cosine_forward_parts(int64_t N);
int64_t masked_cosine_backward_parts(int64_t N);

cudaError_t masked_cosine_forward(const MaskedCosineArgs& args, cudaStream_t stream);
cudaError_t masked_cosine_backward(const MaskedCosineArgs& args, cudaStream_t stream);

}  // namespace rrsis_kernels
