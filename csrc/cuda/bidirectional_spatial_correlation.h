// Launchers of bidirectional_spatial_correlation's forward.
#pragma once

#include <driver_types.h>

#include "token_pixel.h"

namespace rrsis_kernels {

// Starts the kernels on a stream of the current device. B, N, H, L and C are not 0, and all outputs that `paint` and `pool`
// ask for and the working memory (token_pixel_workspace) are there. Returns what became of the launches.
cudaError_t bidirectional_spatial_correlation_forward(const TokenPixelForward& a, cudaStream_t stream);

}  // namespace rrsis_kernels
