// Which compiled code runs on which GPU.
#pragma once
#include <string>

namespace ingot::cuda {
// "sm_90a": of compute capability 9.0, with what later ones of its kind lack.
struct Architecture {
  int capability = 0;  // 0: the text is no architecture
  bool specific = false;
};
Architecture parse_architecture(const std::string& name);

// Machine code runs on GPUs of its major version and at least its minor one; specific code on its
// own alone (CUDA C++ Programming Guide, "Binary Compatibility").
bool runs_on(const Architecture& architecture, int capability);
}  // namespace ingot::cuda
