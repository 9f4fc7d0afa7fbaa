// The module rrsis_kernels._build_info: how the native files beside it were built.
//
// The operators themselves are in plain shared libraries without Python symbols (_C.so, _C_cuda.so), which a C++ program
// can load as well; this module only repeats what the build knew, so that a report of a problem can carry it.

#include <pybind11/pybind11.h>

#include <string>

#include "build_config.h"

namespace py = pybind11;

namespace {

// "baseline:;avx2:-mavx2 -mfma" -> {"baseline": "", "avx2": "-mavx2 -mfma"}
py::dict instruction_sets(const std::string& text) {
  py::dict result;
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = text.find(';', begin);
    if (end == std::string::npos) {
      end = text.size();
    }
    const std::string entry = text.substr(begin, end - begin);
    const std::size_t colon = entry.find(':');
    result[py::str(entry.substr(0, colon))] = py::str(entry.substr(colon + 1));
    begin = end + 1;
  }
  return result;
}

py::object text_or_none(const char* text) {
  return *text == '\0' ? py::object(py::none()) : py::object(py::str(text));
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = RRSIS_CXX;
  info["compiler_version"] = __VERSION__;
  info["cxx_flags"] = RRSIS_CXX_FLAGS;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["cpu_capabilities"] = instruction_sets(RRSIS_CPU_ISAS);
  info["torch_version"] = RRSIS_TORCH_VERSION;
  info["torch_cuda"] = text_or_none(RRSIS_TORCH_CUDA);
  info["torch_target_version"] = RRSIS_TORCH_TARGET_VERSION;
  info["cuda_built"] = *RRSIS_CUDA_REASON == '\0';
  info["cuda_reason"] = text_or_none(RRSIS_CUDA_REASON);
  info["cuda_compiler"] = text_or_none(RRSIS_CUDA_COMPILER);
  info["cuda_architectures"] = text_or_none(RRSIS_CUDA_ARCHITECTURES);
  info["time"] = __DATE__ " " __TIME__;
  return info;
}

}  // namespace

PYBIND11_MODULE(_build_info, module) {
  module.doc() = "How the native files of rrsis_kernels were built.";
  module.def("build_info", &build_info, "A dictionary of compiler, flags, instruction sets, torch and CUDA.");
}
