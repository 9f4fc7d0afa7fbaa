// twin_stream_attention, forward: which kernels for which dtype.
#include "twin_stream_attention.h"

#include "token_pixel_forward.cuh"

namespace rrsis_kernels {

cudaError_t twin_stream_attention_forward(const TokenPixelForward& a, cudaStream_t stream) {
  switch (a.dtype) {
    case kFloat32: return rk::launch_forward<float, false, true, true>(a, stream);
    case kBFloat16: return rk::launch_forward<__nv_bfloat16, false, true, true>(a, stream);
    case kFloat16: return rk::launch_forward<__half, false, true, true>(a, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace rrsis_kernels
