// Running the token-pixel kernels over samples and chunks: shared by both operators.
#pragma once

#include "kernels.h"

namespace rrsis_kernels {

// Pixel chunks per sample. A function of the shape alone, so that the order of every sum is the same with any number of
// threads: enough chunks for the threads of a large machine, each long enough that combining it costs little. `sums` is how many numbers a chunk accumulates.
int64_t chunk_count(int64_t samples, int64_t pixels, int64_t sums);

void run_forward(const TokenPixelArgs& args);
void run_backward(const TokenPixelArgs& args);

}  // namespace rrsis_kernels
