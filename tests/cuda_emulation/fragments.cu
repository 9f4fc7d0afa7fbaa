// One instruction a kernel, for test_fragments.py: compiled for the host with the emulation, or by nvcc for a GPU.
#include <cstring>
#include <vector>

#include "intrinsics.cuh"

namespace {

// Host memory as kernels see it: itself in the emulation, a copy on a GPU.
template <class T>
class Visible {
 public:
#ifdef RRSIS_CUDA_EMULATION
  Visible(T* host, size_t) : data_(host) {}
#else
  Visible(T* host, size_t count) : host_(host), bytes_(count * sizeof(T)) {
    if (cudaMalloc(&data_, bytes_) != cudaSuccess) data_ = nullptr;
    cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice);
  }
  ~Visible() {
    cudaMemcpy(host_, data_, bytes_, cudaMemcpyDeviceToHost);
    cudaFree(data_);
  }
#endif
  Visible(const Visible&) = delete;
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
#ifndef RRSIS_CUDA_EMULATION
  T* host_;
  size_t bytes_;
#endif
};

template <class T>
__global__ void multiply(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = threadIdx.x;
  const uint32_t from_a[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
  float to[4] = {d[4 * lane], d[4 * lane + 1], d[4 * lane + 2], d[4 * lane + 3]};
  rk::mma_m16n8k16(to, from_a, b[2 * lane], b[2 * lane + 1], T());
  for (int i = 0; i < 4; ++i) d[4 * lane + i] = to[i];
}

// rows: 32 of 8 elements; lane i brings the address of row order[i].
template <int kCount, bool kTransposed>
__global__ void load(const uint16_t* rows, const int* order, uint32_t* registers) {
  uint16_t* shared = reinterpret_cast<uint16_t*>(rk::shared_memory());
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) shared[8 * lane + i] = rows[8 * lane + i];
  __syncthreads();
  uint32_t to[kCount];
  rk::ldmatrix<kCount, kTransposed>(to, shared + 8 * order[lane]);
  for (int i = 0; i < kCount; ++i) registers[kCount * lane + i] = to[i];
}

constexpr int kGroups = 3;

__device__ void look(const float* shared, int moment, float* seen) {
  __syncthreads();
  for (int i = 0; i < 4 * kGroups; ++i) seen[(moment * 32 + threadIdx.x) * 4 * kGroups + i] = shared[4 * kGroups * threadIdx.x + i];
  __syncthreads();
}

// Every lane copies 16 bytes in each of three groups, reading source_bytes[group] of them; seen: shared memory after the last
// commit and after each wait, (4, 32, 3, 4).
__global__ void copy(const float* from, const int* source_bytes, float* seen) {
  float* shared = reinterpret_cast<float*>(rk::shared_memory());
  for (int group = 0; group < kGroups; ++group) {
    const int at = 4 * (kGroups * threadIdx.x + group);
    rk::cp_async_16(shared + at, from + at, source_bytes[group]);
    rk::cp_async_commit();
  }
  look(shared, 0, seen);
  rk::cp_async_wait<2>();
  look(shared, 1, seen);
  rk::cp_async_wait<1>();
  look(shared, 2, seen);
  rk::cp_async_wait<0>();
  look(shared, 3, seen);
}

template <class Kernel, class... Arguments>
int run(Kernel kernel, size_t shared_bytes, const Arguments&... arguments) {
  const cudaError_t error = rk::launch(kernel, dim3(1), dim3(32), shared_bytes, nullptr, arguments...);
#ifndef RRSIS_CUDA_EMULATION
  if (error == cudaSuccess) return cudaDeviceSynchronize();
#endif
  return error;
}

template <int kCount, bool kTransposed>
int run_load(const uint16_t* rows, const int* order, uint32_t* registers) {
  return run(load<kCount, kTransposed>, 512, rows, order, registers);
}

}  // namespace

// Return a cudaError_t.
#define RRSIS_ENTRY extern "C" __attribute__((visibility("default")))

RRSIS_ENTRY int fragments_multiply(int bfloat16, uint32_t* a, uint32_t* b, float* d) {
  const Visible<uint32_t> va(a, 128), vb(b, 64);
  const Visible<float> vd(d, 128);
  return run(bfloat16 ? multiply<__nv_bfloat16> : multiply<__half>, 0, va.get(), vb.get(), vd.get());
}

RRSIS_ENTRY int fragments_load(int count, int transposed, uint16_t* rows, int* order, uint32_t* registers) {
  const Visible<uint16_t> vr(rows, 256);
  const Visible<int> vo(order, 32);
  const Visible<uint32_t> to(registers, 32 * count);
  if (count == 4) return (transposed ? run_load<4, true> : run_load<4, false>)(vr.get(), vo.get(), to.get());
  return (transposed ? run_load<2, true> : run_load<2, false>)(vr.get(), vo.get(), to.get());
}

RRSIS_ENTRY int fragments_copy(float* from, int* source_bytes, float* seen) {
  const Visible<float> vf(from, 32 * 4 * kGroups), vs(seen, 4 * 32 * 4 * kGroups);
  const Visible<int> vb(source_bytes, kGroups);
  return run(copy, 32 * 16 * kGroups, vf.get(), vb.get(), vs.get());
}
