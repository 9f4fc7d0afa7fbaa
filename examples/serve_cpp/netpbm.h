// Images as binary PPM (P6) in, as binary PGM (P5) out: formats that need no library and that every tool converts.
#pragma once

#include <ATen/Tensor.h>

#include <string>

// Reads 8-bit RGB as (height, width, 3) uint8. Throws std::runtime_error that names the file.
at::Tensor read_ppm(const std::string& path);

// Writes a contiguous (height, width) uint8 image, whole or not at all. Throws std::runtime_error that names the file.
void write_pgm(const std::string& path, const at::Tensor& image);
