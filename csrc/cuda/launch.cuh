// Starting a kernel, and its shared memory. The kernel files hold no torch: they take plain structs and a stream.
//
// tests/cuda_emulation/emulation.h, included ahead of everything, brings host versions of all that is here and in
// intrinsics.cuh; the kernels are then ordinary C++.
#pragma once

#ifndef RRSIS_CUDA_EMULATION

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace rk {

// Starts kernel(arguments...) on a stream of the current device and returns what became of the launch. Shared memory is
// dynamic only; what passes the 48 KiB that every device gives unasked is asked for.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   const Arguments&... arguments) {
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// The block's dynamic shared memory, aligned to 128 bytes.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ __align__(128) char memory[];
  return memory;
}

}  // namespace rk

#endif  // RRSIS_CUDA_EMULATION
