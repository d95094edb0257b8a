// CUDA's threads on a CPU, for tests: kernels of custom_ops/cuda compile against this as plain C++.
//
// Each thread of a block is a fiber; the fibers of a block take turns on one thread of the CPU, and
// change only where CUDA's threads wait for each other (barriers, shuffles, mma, ldmatrix). What
// waits forever is reported, shared memory begins as NaN, and asynchronous copies arrive as late as
// they may: when the thread waits for them. A warp runs on until it waits for others of its block.
// INGOT_EMULATION_ORDER=backward runs the fibers the other way round, and copies arrive as soon as
// they may: a kernel with a race gives other results then. It says nothing about speed, nor about
// memory ordering finer than that.
//
// What a GPU leaves undefined or ends the process for ends the program: a collective of a warp that
// not all 32 lanes take part in, or in which they do different things; addresses of copies and of
// ldmatrix that are not aligned or not in shared memory; writes beyond it. Other accesses are held
// to their alignment by the compiler's sanitizer, with which the kernels are compiled.
//
// The semantics follow NVIDIA's "CUDA C++ Programming Guide" (built-in variables, warp shuffles)
// and "PTX ISA" (mma.m16n8k16, ldmatrix, cp.async).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

using cudaError_t = int;
using cudaStream_t = void*;

namespace ingot::emulation {

struct Thread {
  dim3 thread, block, block_size, grid_size;
};
Thread& current();

enum class Collective { shuffle, vote, multiply, load_matrices };

// What a lane gives to a collective of its warp, and can read of the others once all have arrived.
struct Given {
  Collective what;
  uint32_t words[8];
  const void* address;
};
// Waits until every lane of the warp has given; the result is indexed by lane.
const Given* exchange(const Given& given);

// Ends the program unless 16 bytes at `address` are aligned and in dynamic shared memory.
void expect_shared(const void* address);

void sync_block();
void sync_warp();
unsigned char* dynamic_shared();

void copy_later(void* to, const void* from, int bytes, int bytes_of_zero);
void commit_copies();
void wait_copies(int groups_left);  // until no more than so many groups are under way

// Does `work` in the stream's order, as the tests' driver has it (tests/cuda/fake_driver.h); at
// once where there is no stream.
void enqueue(void* stream, const std::function<void()>& work);
// Runs `body` once for every thread of every block. Ends the program where a GPU would refuse the
// launch.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

}  // namespace ingot::emulation

#define threadIdx (ingot::emulation::current().thread)
#define blockIdx (ingot::emulation::current().block)
#define blockDim (ingot::emulation::current().block_size)
#define gridDim (ingot::emulation::current().grid_size)

inline void __syncthreads() { ingot::emulation::sync_block(); }
inline void __syncwarp() { ingot::emulation::sync_warp(); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  static_assert(sizeof(T) == 4);
  ingot::emulation::Given given{ingot::emulation::Collective::shuffle, {}, nullptr};
  memcpy(given.words, &value, 4);
  memcpy(&value, ingot::emulation::exchange(given)[lane & 31].words, 4);
  return value;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x & 31) ^ bits);
}

inline int __any_sync(unsigned, int predicate) {
  ingot::emulation::Given given{ingot::emulation::Collective::vote, {}, nullptr};
  given.words[0] = predicate != 0;
  const ingot::emulation::Given* all = ingot::emulation::exchange(given);
  int any = 0;
  for (int lane = 0; lane < 32; lane++) any |= static_cast<int>(all[lane].words[0]);
  return any;
}

inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
inline float __expf(float x) { return std::exp(x); }
inline float exp2f_approximate(float x) { return std::exp2(x); }
