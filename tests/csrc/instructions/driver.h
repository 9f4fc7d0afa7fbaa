// What the files of the driver share: numbers to work on, and one problem that can be run again and again.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels.h"

namespace driver {

// Deterministic numbers within +-2 * scale, as float32 or bfloat16; `sum` reads them back.
class Array {
 public:
  Array(int64_t count, int dtype, uint32_t seed, float scale = 1) : words_(count + 16), count_(count), dtype_(dtype) {
    uint32_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      set(i, scale * static_cast<float>(static_cast<int32_t>(state) >> 8) / (1 << 22));
    }
  }
  void* data() { return words_.data(); }
  double sum() const {
    double total = 0;
    for (int64_t i = 0; i < count_; ++i) total += get(i);
    return total;
  }

 private:
  void set(int64_t i, float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    if (dtype_ == rrsis_kernels::kFloat32) {
      words_[i] = word;
    } else {
      reinterpret_cast<uint16_t*>(words_.data())[i] = static_cast<uint16_t>(word >> 16);
    }
  }
  float get(int64_t i) const {
    const uint32_t word = dtype_ == rrsis_kernels::kFloat32 ? words_[i] : reinterpret_cast<const uint16_t*>(words_.data())[i] << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
  std::vector<uint32_t> words_;
  int64_t count_;
  int dtype_;
};

struct Problem {
  std::function<void()> run;
  std::function<double()> sum;  // over every output: something to compare two builds by
};

// Sizes: N C H L CHUNKS, L queries a head and stream for the twin stream.
Problem token_pixel(const rrsis_kernels::KernelTable& kernels, bool twin, bool backward, int dtype, const std::vector<int64_t>& sizes);
// Sizes: side of the logits, side of the mask.
Problem mask_statistics(const rrsis_kernels::KernelTable& kernels, bool backward, int dtype, const std::vector<int64_t>& sizes);
// Sizes: N C.
Problem masked_cosine(const rrsis_kernels::KernelTable& kernels, bool backward, int dtype, const std::vector<int64_t>& sizes);

}  // namespace driver
