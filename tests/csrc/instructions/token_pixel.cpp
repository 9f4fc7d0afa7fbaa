#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "driver.h"

namespace driver {
namespace {

using namespace rrsis_kernels;

struct Pass {
  WorkSizes sizes;
  void (*prepare)(const TokenPixelArgs&, int64_t, const WorkMemory&);
  void (*chunk)(const TokenPixelArgs&, int64_t, int64_t, const WorkMemory&);
  void (*finish)(const TokenPixelArgs&, int64_t, const WorkMemory&);

  size_t bytes(int64_t chunks) const { return sizes.sample + chunks * sizes.partial + sizes.thread; }
  void operator()(const TokenPixelArgs& a, char* memory) const {
    char *partials = memory + sizes.sample, *thread = partials + a.chunks * sizes.partial;
    prepare(a, 0, {memory, partials, thread});
    for (int64_t i = 0; i < a.chunks; ++i) chunk(a, 0, i, {memory, partials + i * sizes.partial, thread});
    finish(a, 0, {memory, partials, thread});
  }
};

struct Tensors {
  Array pixels, keys, values, bias, gate, painted, lse, pooled, stats;
  Array grad_painted, grad_pooled, grad_pixels, grad_keys, grad_values, grad_bias, grad_gate;
  TokenPixelArgs a{};

  Tensors(bool twin, int dtype, int64_t N, int64_t C, int64_t H, int64_t L, int64_t chunks)
      : Tensors(twin ? 2 : 1, twin ? 0 : C, dtype, N, C, H, L, chunks) {}

 private:
  Tensors(int banks, int64_t D, int dtype, int64_t N, int64_t C, int64_t H, int64_t L, int64_t chunks)
      : pixels(N * C, dtype, 1), keys(banks * H * L * C, dtype, 2, std::pow(static_cast<float>(C), -0.5f)), values(H * L * D, dtype, 3),
        bias(H * L, dtype, 4), gate(N, dtype, 5), painted(N * D, dtype, 6), lse(banks * H * N, kFloat32, 7),
        pooled(banks * H * L * C, dtype, 8), stats(2 * banks * H * L, kFloat32, 9), grad_painted(N * D, dtype, 10),
        grad_pooled(banks * H * L * C, dtype, 11), grad_pixels(N * C, dtype, 12), grad_keys(banks * H * L * C, dtype, 13),
        grad_values(H * L * D, dtype, 14), grad_bias(H * L, dtype, 15), grad_gate(N, dtype, 16) {
    const int64_t bank_bytes = H * L * C * (dtype == kFloat32 ? 4 : 2);
    a.B = 1, a.N = N, a.C = C, a.D = D, a.H = banks * H, a.L = L, a.chunks = chunks;
    a.banks = banks, a.bank_heads = H, a.dtype = dtype, a.paint = D > 0, a.pool = 1;
    a.pixels = {pixels.data(), N * C, C};
    a.painted = painted.data(), a.pixel_lse = lse.data(), a.pool_stats = stats.data();
    a.grad_painted = {grad_painted.data(), N * D, D};
    a.grad_pixels = grad_pixels.data(), a.grad_values = grad_values.data(), a.grad_key_bias = grad_bias.data();
    for (int i = 0; i < banks; ++i) {
      const auto bank = [&](Array& array) { return static_cast<char*>(array.data()) + i * bank_bytes; };
      a.keys[i] = {bank(keys), H * L * C, L * C, C}, a.pooled[i] = bank(pooled), a.grad_keys[i] = bank(grad_keys);
      a.grad_pooled[i] = {bank(grad_pooled), H * L * C, L * C, C}, a.pooled_view[i] = {bank(pooled), H * L * C, L * C, C};
    }
    if (banks == 2) {
      a.gate = {gate.data(), N, 1}, a.gate_dtype = dtype, a.grad_gate = grad_gate.data();
    } else {
      a.values = {values.data(), H * L * D, L * D, D}, a.key_bias = {bias.data(), H * L, L, 1};
    }
  }
};

}  // namespace

Problem token_pixel(const KernelTable& k, bool twin, bool backward, int dtype, const std::vector<int64_t>& sizes) {
  const auto t = std::make_shared<Tensors>(twin, dtype, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]);
  const Pass forward{k.forward_sizes(t->a), k.forward_prepare, k.forward_chunk, k.forward_finish};
  const Pass reverse{k.backward_sizes(t->a), k.backward_prepare, k.backward_chunk, k.backward_finish};
  const size_t bytes = std::max(forward.bytes(t->a.chunks), reverse.bytes(t->a.chunks));
  const std::shared_ptr<char> memory(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), std::free);
  if (backward) forward(t->a, memory.get());  // what it leaves is what the backward reads
  const Pass pass = backward ? reverse : forward;
  return {[=] { pass(t->a, memory.get()); },
          [=] {
            double total = 0;
            for (const Array* array : {&t->painted, &t->lse, &t->pooled, &t->grad_pixels, &t->grad_keys, &t->grad_values, &t->grad_gate})
              total += array->sum();
            return total;
          }};
}

}  // namespace driver
