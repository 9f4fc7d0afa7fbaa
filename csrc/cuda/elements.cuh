// Elements of any dtype as fp32, and back.
#pragma once

#include "launch.cuh"

namespace rk {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
// A byte is a truth value: masks from image files are 0 and 255 as often as 0 and 1.
__device__ __forceinline__ float to_float(uint8_t x) { return x != 0 ? 1.0f : 0.0f; }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16(x); }
template <>
__device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }

}  // namespace rk
