#include "token_pixel_run.h"

#include <algorithm>

#include "runtime.h"

namespace rrsis_kernels {
namespace {

constexpr int64_t kUnits = kMostChunks;  // samples x chunks to aim for
constexpr int64_t kChunk = 448;          // pixels below which more chunks cost more than they bring
constexpr int64_t kMostSums = 4 << 20;   // numbers that the chunks of a sample may accumulate together ...
constexpr int64_t kFewest = 8;           // ... but for this many chunks: memory is worth less than threads
constexpr int64_t kShortestChunk = 96;   // pixels of the two chunks of a single short sample

struct Pass {
  WorkSizes sizes;
  void (*prepare)(const TokenPixelArgs&, int64_t, const WorkMemory&);
  void (*chunk)(const TokenPixelArgs&, int64_t, int64_t, const WorkMemory&);
  void (*finish)(const TokenPixelArgs&, int64_t, const WorkMemory&);
  int products;
};

// One chunk per sample: a thread takes whole samples, and the packed operands stay in its cache.
void run_samples(const TokenPixelArgs& a, const Pass& p, double work) {
  parallel(a.B, work * a.N, [&](int64_t begin, int64_t end) {
    char* memory = thread_scratch(p.sizes.sample + p.sizes.partial + p.sizes.thread);
    const WorkMemory w{memory, memory + p.sizes.sample, memory + p.sizes.sample + p.sizes.partial};
    for (int64_t b = begin; b < end; ++b) {
      p.prepare(a, b, w);
      for (int64_t i = 0; i < a.chunks; ++i) p.chunk(a, b, i, w);
      p.finish(a, b, w);
    }
  });
}

void run_chunks(const TokenPixelArgs& a, const Pass& p, double work) {
  char* samples = shared_scratch(a.B * (p.sizes.sample + a.chunks * p.sizes.partial));
  char* partials = samples + a.B * p.sizes.sample;
  const auto memory = [&](int64_t b, int64_t i) {
    return WorkMemory{samples + b * p.sizes.sample, partials + (b * a.chunks + i) * p.sizes.partial,
                      thread_scratch(p.sizes.thread)};
  };
  parallel(a.B, work, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) p.prepare(a, b, memory(b, 0));
  });
  parallel(a.B * a.chunks, work * a.N / a.chunks, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) p.chunk(a, u / a.chunks, u % a.chunks, memory(u / a.chunks, u % a.chunks));
  });
  parallel(a.B, work, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) p.finish(a, b, memory(b, 0));
  });
  release_large_scratch();
}

void run(const TokenPixelArgs& a, const Pass& p) {
  const double work = 2.0 * p.products * a.H * a.L * (a.C + a.D) / 2;  // flops per pixel
  if (a.chunks <= 1) {
    run_samples(a, p, work);
  } else {
    run_chunks(a, p, work);
  }
}

}  // namespace

int64_t chunk_count(int64_t samples, int64_t pixels, int64_t sums) {
  if (pixels == 0 || samples == 0) return 0;
  const int64_t affordable = std::max<int64_t>(kFewest, kMostSums / std::max<int64_t>(sums, 1));
  const int64_t wanted = std::min(affordable, (kUnits + samples - 1) / samples);
  const int64_t two = samples == 1 && pixels >= 2 * kShortestChunk ? 2 : 1;
  const int64_t chunks = std::min(wanted, std::max(two, pixels / kChunk));
  return chunks > 1 ? chunks & ~int64_t(1) : 1;  // an even count splits evenly over two threads
}

void run_forward(const TokenPixelArgs& a) {
  const KernelTable& k = kernels(a.dtype);
  run(a, {k.forward_sizes(a), k.forward_prepare, k.forward_chunk, k.forward_finish, 1 + a.paint + a.pool});
}

void run_backward(const TokenPixelArgs& a) {
  const KernelTable& k = kernels(a.dtype);
  run(a, {k.backward_sizes(a), k.backward_prepare, k.backward_chunk, k.backward_finish, 3 + 2 * a.paint + 2 * a.pool});
}

}  // namespace rrsis_kernels
