// What the emulator in bochscpu-python 0.4.0 lacks; loaded before it, so that its references resolve to these.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

extern "C" {

// Its wheel is said to run on glibc 2.28 but asks for these two, which came with 2.38.
unsigned long long __isoc23_strtoull(const char* text, char** end, int base) { return std::strtoull(text, end, base); }
int __isoc23_sscanf(const char* text, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int read = std::vsscanf(text, format, arguments);
  va_end(arguments);
  return read;
}

// The processor that it emulates is fixed when it is built, to one without AVX512-BF16. These are the functions that make
// the description of that processor, in different builds; `rrsis_processor_model` is the one of another.
void* (*rrsis_processor_model)(void* processor) = nullptr;
void* _Z23create_corei3_cnl_cpuidP8BX_CPU_C(void* processor) { return rrsis_processor_model(processor); }
void* _Z23create_tigerlake_cpuidP8BX_CPU_C(void* processor) { return rrsis_processor_model(processor); }

}
