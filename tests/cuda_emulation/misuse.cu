// Kernels that do wrong, or look at what the emulation promises, for test_emulation.py.
#include <cstring>
#include <stdexcept>
#include <string>

#include "launch.cuh"

namespace {

__global__ void meet_at_two_places() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void one_stays_away() {
  if (threadIdx.x != 5) __syncthreads();
}

__global__ void lanes_shuffle_in_a_branch() {
  if (threadIdx.x % 2 == 0) __shfl_xor_sync(0xffffffffu, 1.0f, 2);
}

__global__ void half_a_mask() { __syncwarp(0xffffu); }

// out: (3, 32).
__global__ void shuffle(float* out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_xor_sync(0xffffffffu, static_cast<float>(lane), 5);
  out[32 + lane] = static_cast<float>(__shfl_sync(0xffffffffu, static_cast<double>(lane) + 0.5, 7));
  out[64 + lane] = static_cast<float>(__ballot_sync(0xffffffffu, lane % 3 == 0) % 65536);
}

__global__ void read_shared(float* out, int index) {
  float* shared = reinterpret_cast<float*>(rk::shared_memory());
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = shared[index];
  shared[index] = 1.0f;  // for the next block to find, if it could
}

// The second warp reads what the first one writes anew in the next step. A barrier is missing in between; only where the first
// warp goes on ahead of the second does it show.
__global__ void overwrite_what_is_read(float* out) {
  float* shared = reinterpret_cast<float*>(rk::shared_memory());
  for (int step = 0; step < 2; ++step) {
    if (threadIdx.x < 32) shared[threadIdx.x] = static_cast<float>(step);
    __syncthreads();
    if (threadIdx.x >= 32) out[step * 32 + threadIdx.x - 32] = shared[threadIdx.x - 32];
  }
}

void run(const std::string& name, float* out) {
  const auto start = [](auto kernel, int blocks, int threads, size_t shared_bytes, const auto&... arguments) {
    rk::launch(kernel, dim3(blocks), dim3(threads), shared_bytes, nullptr, arguments...);
  };
  if (name == "meet_at_two_places") return start(meet_at_two_places, 1, 64, 0);
  if (name == "one_stays_away") return start(one_stays_away, 2, 64, 0);
  if (name == "lanes_shuffle_in_a_branch") return start(lanes_shuffle_in_a_branch, 1, 32, 0);
  if (name == "half_a_mask") return start(half_a_mask, 1, 32, 0);
  if (name == "shuffle") return start(shuffle, 1, 32, 0, out);
  if (name == "read_shared") return start(read_shared, 3, 32, 256, out, 0);
  if (name == "read_beyond_shared") return start(read_shared, 1, 32, 256, out, 64);
  if (name == "too_much_shared") return start(read_shared, 1, 32, (227 << 10) + 1, out, 0);
  if (name == "too_many_threads") return start(read_shared, 1, 1056, 256, out, 0);
  if (name == "empty_grid") return start(read_shared, 0, 32, 256, out, 0);
  if (name == "overwrite_what_is_read") return start(overwrite_what_is_read, 1, 64, 128, out);
  throw std::runtime_error("no kernel " + name);
}

}  // namespace

// Runs a kernel by its name under a schedule; what the emulation has against it, or an empty string.
extern "C" __attribute__((visibility("default"))) const char* misuse(const char* name, uint64_t seed, float* out) {
  static std::string text;
  text.clear();
  rk::emulation::set_schedule(seed);
  try {
    run(name, out);
  } catch (const std::exception& error) {
    text = error.what();
  }
  return text.c_str();
}
