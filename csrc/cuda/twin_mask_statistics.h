// Sums over the pixels of two logit maps resized to the mask's size, and their gradient. No torch, no CUDA code.
//
// One pass: a warp takes a strip of 128 x 8 pixels, four neighbours a lane; a lane holds the logit rows before and behind its
// pixels, already resized across, and mixes them down. The forward leaves nine sums per strip, which a second kernel
// adds in one order. The backward leaves, per strip, what its pixels give to the logits that it reads, and a second kernel
// adds up for every logit what the strips around it hold: no atomics.
//
// Bytes a pixel, at F pixels a logit in each direction, m bytes a mask element and e a logit: m + 2e/F^2 in either pass
// (and 1 with `valid`), and in the backward 2e/F^2 of gradients and 16 (1/F + 1/4) (1/F + 1/64) of what strips leave,
// written and read. At 16 x 480^2 from 120^2, fp32 logits, bool mask, that is 5.5 MB forward and 15 MB backward: 1.7 and
// 4.6 us at an H100's 3.35 TB/s. Instructions weigh more: about 90 and 115 a pixel in sm_90's code, which 132 SMs issue in
// no less than 11 and 14 us. Predicted, not measured: these kernels are compiled and emulated, and have never run on a GPU.
#pragma once

#include <driver_types.h>
#include <stddef.h>

#include "../common/views.h"

namespace rrsis_kernels {

constexpr int kMaskStatisticsSums = 9;
// Above it fp32 no longer tells the source coordinates of neighbouring pixels apart.
constexpr int64_t kMaskStatisticsMostSide = int64_t(1) << 22;

struct MaskStatisticsInputs {
  int64_t B, h, w, Hm, Wm;  // logits (B, h, w), mask (B, Hm, Wm); h and w above 0 unless the mask is empty
  int dtype;                // of both logit maps and their gradients: fp32, bf16, fp16
  int mask_dtype;           // bytes or any floating dtype
  float joint_scale;
  RowView target, background, mask;
  RowView valid;  // bytes; a null pointer counts every pixel
};

// Bytes of working memory that a pass needs.
size_t twin_mask_statistics_forward_workspace(const MaskStatisticsInputs& in);
size_t twin_mask_statistics_backward_workspace(const MaskStatisticsInputs& in);

// sums: (B, 9) contiguous, in the order of `TwinMaskStatistics`.
cudaError_t twin_mask_statistics_forward(const MaskStatisticsInputs& in, void* workspace, float* sums, cudaStream_t stream);

// grad_sums: fp32 (B, 9), `batch` its stride. The gradients are (B, h, w) contiguous in the logits' dtype.
cudaError_t twin_mask_statistics_backward(const MaskStatisticsInputs& in, const RowView& grad_sums, void* workspace, void* grad_target,
                                     void* grad_background, cudaStream_t stream);

}  // namespace rrsis_kernels
