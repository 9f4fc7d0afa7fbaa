#include "served_model.h"

#include <ATen/Functions.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>

#include <filesystem>
#include <sstream>
#include <stdexcept>

namespace {

using Metadata = std::unordered_map<std::string, std::string>;

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

const std::string& entry(const Metadata& metadata, const std::string& name) {
  const auto found = metadata.find(name);
  if (found == metadata.end()) {
    fail("package: its metadata have no " + name + "; expected a package of python -m rrsis.export");
  }
  return found->second;
}

// The operators register themselves when their library is loaded; it needs no further call, and no Python.
void load_operators(const std::string& library) {
  if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    fail(std::string("library: ") + dlerror());
  }
}

void check_operators(const Metadata& metadata) {
  std::istringstream names(entry(metadata, "rrsis.operators"));
  for (std::string name; names >> name;) {
    if (!c10::Dispatcher::singleton().findSchema({name, ""})) {
      fail("package: it calls " + name + ", which no library here has; give --library rrsis_kernels/_C.so");
    }
  }
}

// Compiled code would end the process with an illegal instruction.
void check_instructions(const Metadata& metadata) {
  const auto found = metadata.find("AOTI_CPU_ISA");
  const bool compiled_for_avx512 = found != metadata.end() && found->second.find("AVX512") != std::string::npos;
  if (compiled_for_avx512 && at::get_cpu_capability() != "AVX512") {
    fail("package: it was compiled for AVX-512, this processor is used with " + at::get_cpu_capability());
  }
}

// Everything that can be said about a package before its code is loaded.
Metadata checked_metadata(const std::string& package, const std::vector<std::string>& libraries) {
  if (!std::filesystem::is_regular_file(package)) {
    fail("package: no file '" + package + "'");
  }
  Metadata metadata;
  try {
    metadata = torch::inductor::AOTIModelPackageLoader::load_metadata_from_package(package, "model");
  } catch (const std::exception&) {
    fail("package: '" + package + "' is not a package of AOTInductor");
  }
  if (entry(metadata, "rrsis.format") != "1") {
    fail("package: its format is " + entry(metadata, "rrsis.format") + ", this program knows 1");
  }
  check_instructions(metadata);
  for (const std::string& library : libraries) {
    load_operators(library);
  }
  check_operators(metadata);
  return metadata;
}

// What torchvision's resize does with 8-bit images, antialiasing included: vectorised in 8 bits where torch has that,
// else in float32 and rounded.
at::Tensor resize(const at::Tensor& image, ImageSize size) {
  if (image.size(2) == size.height && image.size(3) == size.width) {
    return image;
  }
#if defined(__aarch64__)
  const bool in_8_bits = true;
#else
  const std::string capability = at::get_cpu_capability();
  const bool in_8_bits = capability == "AVX2" || capability == "AVX512";
#endif
  if (in_8_bits) {
    return at::_upsample_bilinear2d_aa(image, {size.height, size.width}, /*align_corners=*/false);
  }
  const at::Tensor resized = at::_upsample_bilinear2d_aa(image.to(at::kFloat), {size.height, size.width}, false);
  return resized.round().to(at::kByte);
}

}  // namespace

ServedModel::ServedModel(const std::string& package, const std::vector<std::string>& libraries)
    : metadata_(checked_metadata(package, libraries)), package_(package) {}

std::vector<double> ServedModel::numbers(const std::string& name) const {
  std::istringstream text(entry(metadata_, "rrsis." + name));
  std::vector<double> values;
  for (double value; text >> value;) {
    values.push_back(value);
  }
  return values;
}

ImageSize ServedModel::own_size() const {
  const auto size = numbers("image_size");
  return {static_cast<int64_t>(size.at(0)), static_cast<int64_t>(size.at(1))};
}

double ServedModel::threshold() const { return numbers("threshold").at(0); }

void ServedModel::check(const std::vector<int64_t>& ids, ImageSize size) const {
  const auto sizes = numbers("size_bounds"), lengths = numbers("token_bounds");
  const auto multiple = static_cast<int64_t>(numbers("size_multiple").at(0));
  for (const int64_t side : {size.height, size.width}) {
    if (side < sizes.at(0) || side > sizes.at(1) || side % multiple != 0) {
      std::ostringstream message;
      message << "size: got a side of " << side << " pixels, expected a multiple of " << multiple << " from "
              << sizes.at(0) << " to " << sizes.at(1);
      fail(message.str());
    }
  }
  const auto length = static_cast<double>(ids.size());
  if (length < lengths.at(0) || length > lengths.at(1)) {
    std::ostringstream message;
    message << "ids: got " << length << " token ids, expected " << lengths.at(0) << " to " << lengths.at(1);
    fail(message.str());
  }
  const double vocabulary = numbers("vocabulary_size").at(0);
  for (const int64_t id : ids) {
    if (id < 0 || static_cast<double>(id) >= vocabulary) {
      std::ostringstream message;
      message << "ids: got " << id << ", expected 0 to " << vocabulary - 1;
      fail(message.str());
    }
  }
}

at::Tensor ServedModel::prepare(const at::Tensor& image, ImageSize size) const {
  at::Tensor pixels = resize(image.permute({2, 0, 1}).unsqueeze(0).contiguous(), size);
  // In the order in which the processor rounds: both statistics are scaled to 0 … 255 first.
  const double levels = 1.0 / numbers("rescale_factor").at(0);
  const auto statistic = [&](const std::string& name) {
    return at::tensor(numbers(name), at::kFloat).mul(levels).view({3, 1, 1});
  };
  return pixels.to(at::kFloat).sub(statistic("image_mean")).div(statistic("image_std"));
}

at::Tensor ServedModel::mask(
    const at::Tensor& image, const std::vector<int64_t>& ids, ImageSize size, double threshold) {
  check(ids, size);
  const c10::InferenceMode guard;
  const at::Device device(entry(metadata_, "rrsis.device"));
  const at::Tensor words = at::tensor(ids, at::kLong).unsqueeze(0).to(device);
  const auto outputs = package_.run({prepare(image, size).to(device), words, at::ones_like(words)});
  // As the processor's post-processing: logits are resized to the image's own size, then become probabilities.
  const at::Tensor logits = outputs.at(0).unsqueeze(0).to(at::kCPU);
  const at::Tensor resized = at::upsample_bilinear2d(logits, {image.size(0), image.size(1)}, /*align_corners=*/false);
  return resized[0][0].sigmoid().gt(threshold).to(at::kByte).mul(255);
}
