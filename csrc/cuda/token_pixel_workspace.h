// Working memory of a token-pixel call, held as tensors while its kernels are started.
#pragma once

#include "runtime.h"
#include "token_pixel.h"

namespace rrsis_kernels {

class TokenPixelMemory {
 public:
  // Points the arguments, whose sizes are set, at new working memory on the device of a tensor.
  TokenPixelMemory(TokenPixelForward& a, const Tensor& like)
      : sizes_(token_pixel_workspace(a)),
        memory_{workspace(sizes_.pool_weights, like), workspace(sizes_.paint_weights, like), workspace(sizes_.tile_stats, like),
                workspace(sizes_.split_stats, like), workspace(sizes_.split_sums, like)} {
    a.pool_weights = memory_[0].mutable_data_ptr();
    a.paint_weights = memory_[1].mutable_data_ptr();
    a.tile_stats = static_cast<float*>(memory_[2].mutable_data_ptr());
    a.split_stats = static_cast<float*>(memory_[3].mutable_data_ptr());
    a.split_sums = static_cast<float*>(memory_[4].mutable_data_ptr());
  }

 private:
  TokenPixelWorkspace sizes_;
  Tensor memory_[5];
};

}  // namespace rrsis_kernels
