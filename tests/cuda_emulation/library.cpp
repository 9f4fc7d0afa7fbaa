// The emulated library: schemas of its own namespace, the host's versions of csrc/cuda/device.cpp, and what tests
// ask of it in C.
#include <cstdint>

#include "cuda/runtime.h"

namespace rk::emulation {
void set_schedule(uint64_t seed);
size_t shared_memory_limit();
}  // namespace rk::emulation

namespace rrsis_kernels {

void check_device(const Tensor& t, const char* name) { STD_TORCH_CHECK(t.is_cpu(), name, " is not on the CPU, where CUDA is emulated"); }

static uint64_t calls = 0;

OnDevice::OnDevice(const Tensor&) { ++calls; }

int64_t shared_memory_limit(const Tensor&) { return rk::emulation::shared_memory_limit(); }

// An emulated launch throws by itself when a kernel does wrong; what is left is what a launcher found.
void check_launch(cudaError_t error, const char* op) { STD_TORCH_CHECK(error == cudaSuccess, "rrsis_kernels.", op, ": error ", int(error)); }

}  // namespace rrsis_kernels

STABLE_TORCH_LIBRARY(rrsis_kernels_emulated, m) {
#include "schemas.inc"
}

#define RRSIS_EXPORT extern "C" __attribute__((visibility("default")))

RRSIS_EXPORT void rrsis_cuda_emulation_schedule(uint64_t seed) {
  rk::emulation::set_schedule(seed);
}

// How many operators have come as far as their launches.
RRSIS_EXPORT uint64_t rrsis_cuda_emulation_calls() { return rrsis_kernels::calls; }
