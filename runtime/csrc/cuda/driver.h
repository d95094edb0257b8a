// The CUDA driver's C interface, opened when a package asks for a GPU: libingot is linked to
// nothing of CUDA's, so it runs where there is none. Names, types and numbers are those of the CUDA
// Driver API (https://docs.nvidia.com/cuda/cuda-driver-api), whose ABI of these functions has been
// fixed since CUDA 11.4; only what the runtime calls is here.
#pragma once
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace ingot::cuda {
using Status = int32_t;    // CUresult
using Address = uint64_t;  // CUdeviceptr
using DeviceId = int32_t;  // CUdevice
using ContextHandle = void*;
using StreamHandle = void*;
using EventHandle = void*;
using ModuleHandle = void*;
using FunctionHandle = void*;
using PoolHandle = void*;
using GraphHandle = void*;
using GraphExecHandle = void*;

inline constexpr Status kSuccess = 0, kOutOfMemory = 2, kNoDevice = 100;
inline constexpr int32_t kMultiprocessors = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;
inline constexpr uint32_t kStreamNonBlocking = 1;
inline constexpr int32_t kPoolReleaseThreshold = 4;
// Other threads may allocate while this one captures.
inline constexpr int32_t kCaptureThreadLocal = 1;

// Functions are in groups: what both halves of the runtime call, then what generated code calls
// through libingot_cuda (host/cuda_calls.cpp).
struct Driver {
  pid_t process;  // that opened it: it does not work in those that this one forks
  Status (*init)(uint32_t flags);
  Status (*driver_version)(int32_t* version);  // 1000 * major + 10 * minor
  Status (*error_string)(Status, const char** text);
  Status (*device_count)(int32_t*);
  Status (*device_name)(char* name, int32_t length, DeviceId);
  Status (*device_attribute)(int32_t* value, int32_t attribute, DeviceId);
  Status (*device_memory)(size_t* bytes, DeviceId);
  // The context that CUDA's runtime library uses too: ops and generated code find it current.
  Status (*primary_retain)(ContextHandle*, DeviceId);
  Status (*push_context)(ContextHandle);
  Status (*pop_context)(ContextHandle*);
  Status (*memory_info)(size_t* free, size_t* total);
  Status (*allocate)(Address*, size_t bytes);
  Status (*release)(Address);
  // Of what ops take in a stream's order (cudaMallocAsync).
  Status (*default_pool)(PoolHandle*, DeviceId);
  Status (*pool_attribute)(PoolHandle, int32_t attribute, void* value);
  Status (*pool_trim)(PoolHandle, size_t bytes_to_keep);
  Status (*graph_memory_trim)(DeviceId);  // of what captured graphs took so
  Status (*allocate_host)(void**, size_t bytes);
  Status (*release_host)(void*);
  Status (*copy_to_device)(Address, const void*, size_t bytes, StreamHandle);
  Status (*copy_to_host)(void*, Address, size_t bytes, StreamHandle);
  Status (*copy)(Address to, Address from, size_t bytes, StreamHandle);  // either may be the host's
  Status (*fill)(Address, uint8_t value, size_t bytes, StreamHandle);
  Status (*stream_create)(StreamHandle*, uint32_t flags);
  Status (*stream_destroy)(StreamHandle);
  Status (*stream_synchronize)(StreamHandle);
  Status (*event_create)(EventHandle*, uint32_t flags);
  Status (*event_destroy)(EventHandle);
  Status (*event_record)(EventHandle, StreamHandle);
  Status (*event_synchronize)(EventHandle);
  Status (*event_elapsed)(float* milliseconds, EventHandle from, EventHandle to);
  Status (*capture_begin)(StreamHandle, int32_t mode);
  Status (*capture_end)(StreamHandle, GraphHandle*);
  Status (*graph_instantiate)(GraphExecHandle*, GraphHandle, uint64_t flags);
  Status (*graph_launch)(GraphExecHandle, StreamHandle);
  Status (*graph_exec_destroy)(GraphExecHandle);
  Status (*graph_destroy)(GraphHandle);

  Status (*context_device)(DeviceId*);  // of the current context
  Status (*context_current)(ContextHandle*);
  Status (*set_context)(ContextHandle);
  Status (*copy_now)(Address to, Address from, size_t bytes);
  Status (*event_query)(EventHandle);
  Status (*module_load)(ModuleHandle*, const void* image);
  Status (*module_unload)(ModuleHandle);
  Status (*module_function)(FunctionHandle*, ModuleHandle, const char* name);
  Status (*function_attribute)(FunctionHandle, int32_t attribute, int32_t value);
  Status (*launch)(FunctionHandle, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z,
                   uint32_t block_x, uint32_t block_y, uint32_t block_z, uint32_t shared_bytes,
                   StreamHandle, void** arguments, void** extra);
};

// Opened and initialised once a process. Throws Error where there is no driver, it is too old, or
// it finds no GPU.
const Driver& driver();

// Throws Error(INGOT_NO_SPACE) where memory is full, else Error(INGOT_FAILED), unless
// `status` is kSuccess. `what` is what was done, for the sentence.
void check(Status status, const char* what);
}  // namespace ingot::cuda
