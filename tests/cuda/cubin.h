// What a cubin says of its kernels: the driver launches by it, so does the tests' fake one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fake_cuda {
struct Parameter {
  size_t bytes;
  bool is_pointer;  // to global memory
};
struct MachineCode {
  std::string name;
  std::vector<Parameter> parameters = {};
  uint32_t registers = 0;     // of a thread
  uint32_t threads = 0;       // of a block; 0: any number
  uint32_t shared_bytes = 0;  // of a block, beside what a launch asks for
};
struct Cubin {
  int32_t capability = 0;  // 90: sm_90
  std::vector<MachineCode> kernels;
};

// Whether the image is machine code for a GPU: an ELF file for CUDA.
bool is_cubin(const void* image);
Cubin read_cubin(const void* image);
}  // namespace fake_cuda
