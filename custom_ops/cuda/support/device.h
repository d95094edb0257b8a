// The GPU for kernels and for those who launch them: real, or emulated on the CPU by tests.
#pragma once

#ifdef INGOT_EMULATE_CUDA
#include "emulated_intrinsics.h"
#else
#include "intrinsics.h"
#endif

#include "support.h"

namespace ingot::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
// Bytes of shared memory that a launch may ask for on every GPU: those of compute capability 8.6
// and 8.9 have the least, 99 KiB a block, of which one is for what kernels have of their own.
constexpr int kMostShared = 98 << 10;

__device__ __forceinline__ float largest_of_warp(float x) {
  for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, bits));
  return x;
}
__device__ __forceinline__ float sum_of_warp(float x) {
  for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(kAllLanes, x, bits);
  return x;
}

__host__ __device__ constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifdef INGOT_EMULATE_CUDA
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  emulation::enqueue(stream, [=] {
    emulation::run(grid, block, static_cast<size_t>(shared_bytes), [&] { kernel(arguments...); });
  });
}

inline int blocks_at_once(int64_t) { return 8; }
#else
// Throws with CUDA's sentence.
inline void check(cudaError_t error) {
  if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
  if (error != cudaSuccess) fail("%s", cudaGetErrorString(error));
}

// How many blocks of a kernel with so much shared memory each the current GPU runs at a time.
inline int blocks_at_once(int64_t shared_bytes) {
  constexpr int64_t kOwn = 1 << 10;  // that the system takes of each block's
  int device = 0, count = 0, bytes = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
  const int64_t each = bytes / (shared_bytes + kOwn);
  return count * static_cast<int>(each < 1 ? 1 : each);
}

// Enqueues the kernel. A grid must not be empty.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
            cudaStream_t stream, const Arguments&... arguments) {
  constexpr int64_t kUnasked = 48 << 10;  // bytes of shared memory that every kernel may have
  if (shared_bytes > kUnasked) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, arguments...));
}
#endif

// A GPU ends all that the process has on it where what a load reads is not aligned.
inline void expect_aligned(const void* weight, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(weight) % bytes == 0) return;
  fail("the weight does not begin at a multiple of %zu bytes; copy it to memory of its own", bytes);
}

// Memory of the device for what a kernel leaves to the next one of the same op. It is given back in
// the stream's order, so a captured graph may hold it. Throws if there is none.
class Workspace {
 public:
  Workspace(int64_t bytes, cudaStream_t stream);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();

  template <typename T>
  T* at(int64_t byte) const {
    return reinterpret_cast<T*>(static_cast<char*>(memory_) + byte);
  }

 private:
  void* memory_ = nullptr;
  cudaStream_t stream_;
};

}  // namespace ingot::cuda
