// Launcher of twin_stream_attention's forward.
#pragma once

#include <driver_types.h>

#include "token_pixel.h"

namespace rrsis_kernels {

// Starts the kernels on a stream of the current device: a pool over two banks of queries, gated or not. B, N, H, L and C are
// not 0, and the working memory (token_pixel_workspace) is there. Returns what became of the launches.
cudaError_t twin_stream_attention_forward(const TokenPixelForward& a, cudaStream_t stream);

}  // namespace rrsis_kernels
