// Problems for csrc/cuda/twin_mask_statistics.cu: each dtype, masks that wide loads can and cannot take, strips that are cut short.
#include "cuda/twin_mask_statistics.h"
#include "driver.h"

namespace {

using namespace rrsis_kernels;

struct Shape {
  int64_t B, h, w, Hm, Wm;
  int dtype, mask_dtype;
  bool valid;
};

void run_both(driver::Run& run, const Shape& s) {
  const RowView none{};
  MaskStatisticsInputs in{s.B, s.h, s.w, s.Hm, s.Wm, s.dtype, s.mask_dtype, 0.5f, none, none, none, none};
  in.target = driver::rows(run, s.B, s.h, s.w, s.dtype, 4.0);
  in.background = driver::rows(run, s.B, s.h, s.w, s.dtype, 4.0);
  in.mask = driver::rows(run, s.B, s.Hm, s.Wm, s.mask_dtype);
  if (s.valid) in.valid = driver::rows(run, s.B, s.Hm, s.Wm, kUInt8);
  const RowView grad_sums{run.input(s.B * kMaskStatisticsSums, kFloat32), kMaskStatisticsSums, 0};
  float* sums = static_cast<float*>(run.output(s.B * kMaskStatisticsSums, kFloat32));
  run.check(twin_mask_statistics_forward(in, run.workspace(twin_mask_statistics_forward_workspace(in)), sums, nullptr), "forward");
  void *grad_target = run.output(s.B * s.h * s.w, s.dtype), *grad_background = run.output(s.B * s.h * s.w, s.dtype);
  void* workspace = run.workspace(twin_mask_statistics_backward_workspace(in));
  run.check(twin_mask_statistics_backward(in, grad_sums, workspace, grad_target, grad_background, nullptr), "backward");
}

const Shape kShapes[] = {
    {2, 5, 32, 20, 128, kFloat32, kUInt8, true},      // a whole strip across
    {2, 4, 5, 11, 9, kBFloat16, kUInt8, true},        // odd everywhere
    {1, 3, 40, 9, 133, kFloat16, kFloat32, false},    // two strips, one of five pixels
    {1, 19, 70, 17, 132, kFloat32, kBFloat16, true},  // fewer rows, more columns
    {1, 40, 300, 3, 17, kBFloat16, kFloat16, false},  // a smaller map
    {3, 1, 1, 9, 10, kFloat32, kFloat64, false},      // a single logit
    {1, 7, 6, 7, 6, kFloat32, kUInt8, false},         // the same size
};

const bool kKnown = [] {
  for (const Shape& s : kShapes) {
    const std::string name = "twin_mask_statistics " + std::to_string(s.h) + "x" + std::to_string(s.w) + " to " + std::to_string(s.Hm) +
                             "x" + std::to_string(s.Wm);
    driver::Problem(name, [s](driver::Run& run) { run_both(run, s); });
  }
  return true;
}();

}  // namespace
