// CUDA on the host, as far as the kernels of csrc/cuda need it: `g++ -x c++ -include emulation.h kernel.cu`.
//
// A block's threads are fibers on one host thread. They switch where they meet: at __syncthreads and __syncwarp, and at
// the warp-wide instructions, which exchange registers. In between a thread runs alone, in an order that a seed shuffles.
// What the hardware leaves undefined is made visible: shared memory starts as NaN, lies between pages that cannot be
// touched and is new for every block; cp.async poisons its destination until it is waited for; threads that meet at
// different places, or never, are an error. Compiled with -fsanitize=thread, the sanitizer sees each fiber as a thread
// that only the two barriers order (a shuffle or an mma orders no memory), and reports races by itself.
#pragma once

#define RRSIS_CUDA_EMULATION 1

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <driver_types.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>

#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif

namespace rk::emulation {

using Where = std::source_location;

// The position of the running thread.
uint3 thread_index();
uint3 block_index();
dim3 block_size();
dim3 grid_size();

// Runs `body` once per thread of every block. Throws std::runtime_error: a limit of the device is passed, threads met at
// different places, or some wait for ever.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

// Bytes of shared memory that a block may ask for: Hopper's 227 KiB, or the KiB in RRSIS_CUDA_EMULATION_SHARED.
size_t shared_memory_limit();

// Order of threads: 0 takes warps and lanes in turn, other seeds shuffle both and let a warp run ahead of the others.
void set_schedule(uint64_t seed);

// Ends the launch with an error that names the thread.
[[noreturn]] void fail(const char* what, Where where);

void synchronise_block(Where where);
void synchronise_warp(Where where);
char* shared_memory();

// Every lane of the warp brings 8 bytes and gets those of lane `from`.
uint64_t exchange(uint64_t value, int from, const char* what, Where where);
// The bits of the lanes whose predicate is true.
uint32_t ballot(bool predicate, Where where);

// The warp-wide instructions, with the fragment layouts of the PTX manual (tests/cuda_emulation/test_fragments.py).
void load_matrices(uint32_t* registers, int count, bool transposed, const void* row, Where where);  // `row`: 16 bytes of the lane's
enum class Format { kBFloat16, kFloat16 };
void multiply_accumulate(Format format, float* d, const uint32_t* a, uint32_t b0, uint32_t b1, Where where);

// The cp.async copies of this thread that have been started; those in all but the last `groups_left` groups are due.
struct Copy {
  void* to;
  const void* from;
  int source_bytes;
};
void start_copy(Copy copy, Where where);
void commit_copies();
bool take_due_copy(int groups_left, Copy* copy);

template <class T>
T shuffle(T value, int from, const char* what, Where where) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(bits, from, what, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline void require_full_mask(unsigned mask, Where where) {
  if (mask != 0xffffffffu) fail("only the full mask of lanes is emulated", where);
}

}  // namespace rk::emulation

#define threadIdx (::rk::emulation::thread_index())
#define blockIdx (::rk::emulation::block_index())
#define blockDim (::rk::emulation::block_size())
#define gridDim (::rk::emulation::grid_size())

// The names below are CUDA's own.
using std::max;
using std::min;

// Compiled with -ffp-contract=off, the host rounds each operation as these do.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }

inline void __syncthreads(std::source_location where = std::source_location::current()) { rk::emulation::synchronise_block(where); }

inline void __syncwarp(unsigned mask = 0xffffffffu, std::source_location where = std::source_location::current()) {
  rk::emulation::require_full_mask(mask, where);
  rk::emulation::synchronise_warp(where);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int = 32, std::source_location where = std::source_location::current()) {
  rk::emulation::require_full_mask(mask, where);
  return rk::emulation::shuffle(value, (threadIdx.x & 31) ^ lanes, "__shfl_xor_sync", where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int = 32, std::source_location where = std::source_location::current()) {
  rk::emulation::require_full_mask(mask, where);
  return rk::emulation::shuffle(value, from & 31, "__shfl_sync", where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  rk::emulation::require_full_mask(mask, where);
  return rk::emulation::ballot(predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate, std::source_location where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}

namespace rk {

// Stands in for csrc/cuda/launch.h's own.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, const Arguments&... arguments) {
  emulation::run_grid(grid, block, shared_bytes, [&] { kernel(arguments...); });
  return cudaSuccess;
}

inline char* shared_memory() { return emulation::shared_memory(); }

// Stand in for csrc/cuda/intrinsics.cuh's own. Memory is touched here, where a sanitizer sees it, by the thread that would.
template <int kCount, bool kTransposed>
void ldmatrix(uint32_t (&registers)[kCount], const void* row, std::source_location where = std::source_location::current()) {
  char bytes[16] = {};
  if (static_cast<int>(threadIdx.x & 31) < 8 * kCount) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulation::fail("ldmatrix: a row is not aligned to 16 bytes", where);
    std::memcpy(bytes, row, 16);
  }
  emulation::load_matrices(registers, kCount, kTransposed, bytes, where);
}

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16,
                         std::source_location where = std::source_location::current()) {
  emulation::multiply_accumulate(emulation::Format::kBFloat16, d, a, b0, b1, where);
}
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half,
                         std::source_location where = std::source_location::current()) {
  emulation::multiply_accumulate(emulation::Format::kFloat16, d, a, b0, b1, where);
}

// The destination holds NaN from here to the wait that covers the copy: the latest moment at which it may arrive.
inline void cp_async_16(void* shared, const void* global, int source_bytes, std::source_location where = std::source_location::current()) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || (source_bytes > 0 && reinterpret_cast<uintptr_t>(global) % 16 != 0))
    emulation::fail("cp.async: an address is not aligned to 16 bytes", where);
  std::memset(shared, 0xff, 16);
  emulation::start_copy({shared, global, source_bytes}, where);
}
inline void cp_async_commit() { emulation::commit_copies(); }
template <int kGroupsLeft>
void cp_async_wait() {
  emulation::Copy copy;
  while (emulation::take_due_copy(kGroupsLeft, &copy)) {
    char bytes[16] = {};
    if (copy.source_bytes > 0) std::memcpy(bytes, copy.from, copy.source_bytes);
    std::memcpy(copy.to, bytes, 16);
  }
}
inline float exp2_approximate(float x) { return std::exp2(x); }
inline float reciprocal_approximate(float x) { return 1.0f / x; }

}  // namespace rk
