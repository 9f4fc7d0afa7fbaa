#include "netpbm.h"

#include <ATen/ops/empty.h>

#include <cctype>
#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace {

// Larger images would overflow nothing but memory; no model is served at such a size.
constexpr int64_t kMaxSide = 65536;

// The next number of a Netpbm header; comments reach from '#' to the end of their line. -1 where there is none.
int64_t header_number(std::istream& file) {
  for (int c = file.peek(); c == '#' || std::isspace(c); c = file.peek()) {
    if (c == '#') {
      std::string comment;
      std::getline(file, comment);
    } else {
      file.get();
    }
  }
  int64_t number = -1;
  return std::isdigit(file.peek()) && file >> number ? number : -1;
}

}  // namespace

at::Tensor read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error("image: cannot open '" + path + "'");
  }
  char magic[2] = {};
  file.read(magic, 2);
  if (!file || magic[0] != 'P' || magic[1] != '6') {
    throw std::runtime_error("image: '" + path + "' is not a binary PPM (P6)");
  }
  const int64_t width = header_number(file), height = header_number(file), maximum = header_number(file);
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide || maximum != 255 || !std::isspace(file.get())) {
    throw std::runtime_error("image: '" + path + "' has no valid PPM header with 8 bits a channel");
  }
  at::Tensor image = at::empty({height, width, 3}, at::kByte);
  file.read(static_cast<char*>(image.mutable_data_ptr()), image.numel());
  if (file.gcount() != image.numel()) {
    throw std::runtime_error("image: '" + path + "' ends before its last pixel");
  }
  return image;
}

void write_pgm(const std::string& path, const at::Tensor& image) {
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary);
  file << "P5\n" << image.size(1) << ' ' << image.size(0) << "\n255\n";
  file.write(static_cast<const char*>(image.const_data_ptr()), image.numel());
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    throw std::runtime_error("out: cannot write '" + path + "'");
  }
}
