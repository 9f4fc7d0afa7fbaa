// Problems for the token-pixel kernels: each dtype and direction, rows that 16-byte copies can and cannot take, partial tiles.
#include "cuda/bidirectional_spatial_correlation.h"
#include "cuda/twin_stream_attention.h"
#include "driver.h"

namespace {

using namespace rrsis_kernels;

struct Shape {
  int64_t B, N, C, D, H, L;
  int dtype;
  bool masks, paint, pool;
};

TokenPixelForward arguments(driver::Run& run, const Shape& s, int64_t banks) {
  TokenPixelForward a{};
  a.B = s.B, a.N = s.N, a.C = s.C, a.D = s.D, a.H = banks * s.H, a.L = s.L;
  a.bank_heads = s.H, a.dtype = s.dtype, a.paint = s.paint, a.pool = s.pool;
  a.shared_limit = 227 << 10;
  a.pixels = driver::rows(run, s.B, s.N, s.C, s.dtype);
  for (int64_t bank = 0; bank < banks; ++bank) a.keys[bank] = driver::tokens(run, s.B, s.H, s.L, s.C, s.dtype, 0.3);
  if (s.masks) a.pixel_mask = driver::rows(run, s.B, s.N, 1, kUInt8);
  derive(a);
  return a;
}

void set_outputs(driver::Run& run, TokenPixelForward& a, int64_t banks) {
  if (a.paint) {
    a.painted = run.output(a.B * a.N * a.D, a.dtype);
    a.pixel_lse = static_cast<float*>(run.output(a.B * a.H * a.N, kFloat32));
  }
  if (a.pool) {
    for (int64_t bank = 0; bank < banks; ++bank) a.pooled[bank] = run.output(a.B * a.bank_heads * a.L * a.C, a.dtype);
    a.pool_stats = static_cast<float*>(run.output(a.B * a.H * a.L * 2, kFloat32));
  }
  const TokenPixelWorkspace sizes = token_pixel_workspace(a);
  a.pool_weights = run.workspace(sizes.pool_weights);
  a.paint_weights = run.workspace(sizes.paint_weights);
  a.tile_stats = static_cast<float*>(run.workspace(sizes.tile_stats));
  a.split_stats = static_cast<float*>(run.workspace(sizes.split_stats));
  a.split_sums = static_cast<float*>(run.workspace(sizes.split_sums));
}

void correlate(driver::Run& run, const Shape& s) {
  TokenPixelForward a = arguments(run, s, 1);
  if (s.paint) a.values = driver::tokens(run, s.B, s.H, s.L, s.D, s.dtype);
  if (s.masks) {
    a.key_bias = {run.input(s.B * s.H * s.L, s.dtype), s.H * s.L, s.L, 1};
    a.token_mask = driver::rows(run, s.B, s.L, 1, kUInt8);
  }
  set_outputs(run, a, 1);
  run.check(bidirectional_spatial_correlation_forward(a, nullptr), "bidirectional_spatial_correlation");
}

void attend(driver::Run& run, const Shape& s) {
  TokenPixelForward a = arguments(run, s, 2);
  if (s.masks) {
    a.gate = driver::rows(run, s.B, s.N, 1, s.dtype);
    a.gate_dtype = s.dtype;
  }
  set_outputs(run, a, 2);
  run.check(twin_stream_attention_forward(a, nullptr), "twin_stream_attention");
}

const Shape kCorrelations[] = {
    {1, 70, 16, 16, 2, 3, kBFloat16, true, true, true},   {2, 65, 9, 7, 1, 9, kFloat16, true, true, true},
    {1, 130, 40, 24, 3, 20, kFloat16, false, true, true}, {1, 66, 24, 16, 2, 5, kFloat32, true, true, true},
    {1, 20, 72, 8, 1, 4, kBFloat16, true, true, false},   {1, 64, 8, 0, 2, 2, kFloat32, false, false, true},
};
const Shape kAttentions[] = {
    {1, 70, 16, 0, 2, 3, kBFloat16, true, false, true},
    {2, 65, 9, 0, 1, 9, kFloat16, false, false, true},
    {1, 66, 24, 0, 2, 4, kFloat32, true, false, true},
};

std::string name_of(const char* op, const Shape& s) {
  return op + (" N " + std::to_string(s.N)) + ", C " + std::to_string(s.C) + ", dtype " + std::to_string(s.dtype);
}

const bool kKnown = [] {
  for (const Shape& s : kCorrelations)
    driver::Problem(name_of("bidirectional_spatial_correlation", s), [s](driver::Run& run) { correlate(run, s); });
  for (const Shape& s : kAttentions) driver::Problem(name_of("twin_stream_attention", s), [s](driver::Run& run) { attend(run, s); });
  return true;
}();

}  // namespace
