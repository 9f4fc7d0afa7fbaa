// `driver SCHEDULES`: calls every launcher that is linked in on its problems, with buffers that end, then begin, at a page that
// cannot be touched, under that many schedules. Exit status 3: a result is NaN or depends on the schedule; 4: an emulated
// launch failed; ended by SIGSEGV: an access out of bounds; 66: ThreadSanitizer has seen a race.
#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "emulation.h"

namespace driver {
namespace {

using rk::emulation::Guarded;
using rrsis_kernels::DType;

struct Wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::vector<std::pair<std::string, std::function<void(Run&)>>>& problems() {
  static std::vector<std::pair<std::string, std::function<void(Run&)>>> all;
  return all;
}

size_t size_of(int dtype) {
  switch (dtype) {
    case DType::kFloat64: return 8;
    case DType::kFloat32: return 4;
    case DType::kUInt8: return 1;
    default: return 2;
  }
}

template <class T>
void put(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

void put(char* to, int dtype, double value) {
  switch (dtype) {
    case DType::kFloat64: return put(to, value);
    case DType::kFloat32: return put(to, static_cast<float>(value));
    case DType::kBFloat16: return put(to, __float2bfloat16(static_cast<float>(value)));
    case DType::kFloat16: return put(to, __float2half(static_cast<float>(value)));
    default: return put(to, static_cast<uint8_t>(value > 0));
  }
}

bool is_nan(const char* from, int dtype) {
  uint64_t bits = 0;
  std::memcpy(&bits, from, size_of(dtype));
  switch (dtype) {
    case DType::kFloat64: return (bits & ~(uint64_t{1} << 63)) > 0x7ff0000000000000u;
    case DType::kFloat32: return (bits & 0x7fffffffu) > 0x7f800000u;
    case DType::kBFloat16: return (bits & 0x7fffu) > 0x7f80u;
    case DType::kFloat16: return (bits & 0x7fffu) > 0x7c00u;
    default: return bits == 0xff;
  }
}

// Under each schedule, the same bits.
void drive(const std::string& name, const std::function<void(Run&)>& body, Guarded::Against against, uint64_t schedules) {
  std::string due;
  for (uint64_t seed = 0; seed < schedules; ++seed) {
    rk::emulation::set_schedule(seed);
    Run run(against);
    body(run);
    const std::string found = run.results();
    if (seed == 0) due = found;
    if (found != due) throw Wrong("results under schedule " + std::to_string(seed) + " are not those under schedule 0");
  }
}

}  // namespace

char* Run::allocate(size_t bytes, size_t alignment) {
  buffers_.push_back(std::make_unique<Guarded>(bytes, alignment, against_));
  std::memset(buffers_.back()->data(), 0xff, bytes);
  return buffers_.back()->data();
}

const void* Run::input(int64_t count, int dtype, double scale) {
  std::normal_distribution<double> normal;
  char* data = allocate(count * size_of(dtype), size_of(dtype));
  for (int64_t i = 0; i < count; ++i) put(data + i * size_of(dtype), dtype, scale * normal(random_));
  return data;
}

void* Run::output(int64_t count, int dtype) {
  char* data = allocate(count * size_of(dtype), size_of(dtype));
  outputs_.push_back({data, count, dtype});
  return data;
}

// Aligned as an allocator does it, so that its end is only nearly at the page where its size is odd.
void* Run::workspace(size_t bytes) { return allocate(bytes, 16); }

void Run::check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw Wrong(std::string(what) + " returns error " + std::to_string(error));
}

std::string Run::results() const {
  std::string bytes;
  for (const Output& output : outputs_) {
    for (int64_t i = 0; i < output.count; ++i)
      if (is_nan(output.data + i * size_of(output.dtype), output.dtype))
        throw Wrong("NaN in output " + std::to_string(&output - outputs_.data()) + " at " + std::to_string(i));
    bytes.append(output.data, output.count * size_of(output.dtype));
  }
  return bytes;
}

Problem::Problem(std::string name, std::function<void(Run&)> body) { problems().emplace_back(std::move(name), std::move(body)); }

rrsis_kernels::TokenView tokens(Run& run, int64_t B, int64_t H, int64_t L, int64_t C, int dtype, double scale) {
  return {run.input(B * H * L * C, dtype, scale), H * L * C, L * C, C};
}

rrsis_kernels::RowView rows(Run& run, int64_t B, int64_t N, int64_t C, int dtype, double scale) {
  return {run.input(B * N * C, dtype, scale), N * C, C};
}

}  // namespace driver

int main(int, char** arguments) {
  const uint64_t schedules = std::strtoull(arguments[1], nullptr, 10);
  for (const auto& [name, body] : driver::problems()) {
    for (const auto against : {driver::Guarded::Against::kEnd, driver::Guarded::Against::kBegin}) {
      std::printf("%s, buffers %s at a page\n", name.c_str(), against == driver::Guarded::Against::kEnd ? "end" : "begin");
      std::fflush(stdout);  // to name the problem whatever happens
      try {
        driver::drive(name, body, against, schedules);
      } catch (const driver::Wrong& wrong) {
        std::printf("%s\n", wrong.what());
        return 3;
      } catch (const std::exception& error) {
        std::printf("%s\n", error.what());
        return 4;
      }
    }
  }
  return driver::problems().empty() ? 5 : 0;
}
