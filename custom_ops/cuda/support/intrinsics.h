// What kernels need of the GPU beyond C++, a function each: tensor cores, asynchronous copies,
// pairs of 16-bit floats in a 32-bit register (the low half first). For sm_80 and later.
//
// tests/cuda/emulation/emulated_intrinsics.h has the same functions for a CPU. Fragment layouts are
// PTX's (NVIDIA, "PTX ISA", matrix fragments of mma.m16n8k16), with g = lane / 4 and t = lane % 4:
//   A [16, 16]   a[0]: row g, columns 2t and 2t + 1; a[1]: row g + 8; a[2], a[3]: columns + 8
//   B [16, 8]    b0: rows 2t and 2t + 1 of column g; b1: rows + 8
//   C [16, 8]    c[0], c[1]: row g, columns 2t and 2t + 1; c[2], c[3]: row g + 8
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace ingot::cuda {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(Half x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float to_float(Bfloat x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float to_float(float x) { return x; }

// Rounded to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ Half to_half(float x) { return {__half_as_ushort(__float2half_rn(x))}; }
__device__ __forceinline__ Bfloat to_bfloat(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// The value types that tensor cores multiply here, as tags.
struct HalfPairs {};
struct BfloatPairs {};

__device__ __forceinline__ uint32_t pack(HalfPairs, float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}
__device__ __forceinline__ uint32_t pack(BfloatPairs, float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// a + b of each half, bfloat16.
__device__ __forceinline__ uint32_t add_bfloats(uint32_t a, uint32_t b) {
  uint32_t d;  // sm_80 has no add of its own
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80u), "r"(b));
  return d;
}
// Four bytes of the eight of a (0 to 3) and b (4 to 7), by the selector's nibbles.
__device__ __forceinline__ uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// c += A B, summed in float32.
__device__ __forceinline__ void mma(HalfPairs, float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(BfloatPairs, float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of 16-bit values from shared memory: lane 8i + r gives the address of row r of
// matrix i, 16 bytes aligned. to[i]: of matrix i, row g, columns 2t and 2t + 1.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
// The same, each matrix transposed: to[i] holds rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// 16 bytes from global to shared memory, both aligned; of these the first `bytes` are read, the
// rest is zero. They are there for this thread once it has waited for their group.
__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes = 16) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(address), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until no more than the last `Left` groups are under way.
template <int Left>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(Left) : "memory");
}

// What is read once: it does not displace what caches hold.
__device__ __forceinline__ uint4 load_once(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

__device__ __forceinline__ float as_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t as_bits(float x) { return __float_as_uint(x); }
// IEEE's, never fused and whatever the compiler's options: for results that must equal the CPU's.
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float sum(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float quotient(float a, float b) { return __fdiv_rn(a, b); }
// 2^x, with an error of 2 units in the last place.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// a / b, with an error of 2 units in the last place; 0 for b above 2^126.
__device__ __forceinline__ float quotient_fast(float a, float b) { return __fdividef(a, b); }

__device__ __forceinline__ void* dynamic_shared() {
  extern __shared__ uint4 ingot_dynamic_shared[];
  return ingot_dynamic_shared;
}

}  // namespace ingot::cuda
