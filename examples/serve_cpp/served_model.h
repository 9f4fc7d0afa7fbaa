// A package of `python -m rrsis.export` and what its metadata say about it.
#pragma once

#include <ATen/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

struct ImageSize {
  int64_t height;
  int64_t width;
};

class ServedModel {
 public:
  // Loads a package after the libraries with the operators that it calls. Throws std::runtime_error with one clear line.
  ServedModel(const std::string& package, const std::vector<std::string>& libraries);

  // The size at which the model was trained.
  ImageSize own_size() const;

  // The probability above which a pixel belongs to the mask, as given when the package was made.
  double threshold() const;

  // Segments what the token ids ([CLS] and [SEP] included) refer to.
  //   image: (height, width, 3) uint8
  //   size:  what the image is resized to before the model sees it
  // Returns 0 and 255, (height, width) uint8. Throws std::runtime_error where an input is outside the package's bounds.
  at::Tensor mask(const at::Tensor& image, const std::vector<int64_t>& ids, ImageSize size, double threshold);

 private:
  void check(const std::vector<int64_t>& ids, ImageSize size) const;
  at::Tensor prepare(const at::Tensor& image, ImageSize size) const;
  std::vector<double> numbers(const std::string& name) const;

  std::unordered_map<std::string, std::string> metadata_;
  torch::inductor::AOTIModelPackageLoader package_;
};
