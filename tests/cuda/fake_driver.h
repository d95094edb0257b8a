// A CUDA driver of the tests (libcuda.so.1, in a folder of its own) for machines without a GPU. The
// GPU's memory is the host's, but readable only while the fake itself works: whoever follows a
// device pointer elsewhere ends with a SIGSEGV. Streams run as late as they may, when somebody
// waits for them: who does not wait reads what was there before. A kernel is a function of the
// test's, or machine code, whose launches are held against what it says of itself, and against what
// its GPU has; somebody else computes it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace fake_cuda {
// What cuModuleLoadData takes for an image, beside cubins.
struct Kernel {
  const char* name;
  int32_t (*run)(void** arguments);  // non-zero: it failed, as on an illegal address
  size_t argument_bytes[8];          // up to the first zero
};
struct Image {
  const Kernel* kernels;
  size_t count;
};

struct Counts {
  // what is there now
  int64_t allocations, pinned, streams, events, modules, graphs, contexts;
  size_t bytes;
  // what was done since `reset`
  int64_t kernel_launches, graph_launches, copies_to_device, copies_to_host, captures;
};

// Computes a kernel of machine code, when the stream comes to it: `grid` [3], `arguments` as
// cuLaunchKernel's, as many as the machine code takes. Non-zero: it failed.
using Compute = int32_t (*)(const char* kernel, const uint32_t* grid, void** arguments,
                            size_t count);

struct Settings {
  int32_t devices = 1;
  int32_t capability = 90;
  int32_t version = 13000;  // of CUDA, that the driver knows
  size_t memory = 64 << 20;
  // The n-th of these from now on fails, once; 0: none does; -1: all do.
  int64_t failing_allocation = 0, failing_copy = 0, failing_capture = 0, failing_launch = 0;
};
}  // namespace fake_cuda

extern "C" {
// Counts begin anew, errors are forgotten; what is there stays.
void fake_cuda_reset(const fake_cuda::Settings* settings);
fake_cuda::Counts fake_cuda_counts();
// Before, and where it is null, kernels of machine code do nothing.
void fake_cuda_compute(fake_cuda::Compute compute);
// Work of somebody else's in a stream, such as an emulated op's kernel; a capture keeps it too.
void fake_cuda_enqueue(void* stream, const std::function<void()>& work);
}
