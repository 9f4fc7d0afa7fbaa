// bidirectional_spatial_correlation, forward: which kernels for which dtype and direction.
#include "bidirectional_spatial_correlation.h"

#include "token_pixel_forward.cuh"

namespace rrsis_kernels {
namespace {

template <class T>
cudaError_t forward(const TokenPixelForward& a, cudaStream_t stream) {
  if (!a.pool) return rk::launch_forward<T, true, false, false>(a, stream);
  if (!a.paint) return rk::launch_forward<T, false, true, false>(a, stream);
  return rk::launch_forward<T, true, true, false>(a, stream);
}

}  // namespace

cudaError_t bidirectional_spatial_correlation_forward(const TokenPixelForward& a, cudaStream_t stream) {
  switch (a.dtype) {
    case kFloat32: return forward<float>(a, stream);
    case kBFloat16: return forward<__nv_bfloat16>(a, stream);
    case kFloat16: return forward<__half>(a, stream);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace rrsis_kernels
