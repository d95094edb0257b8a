// What generated code calls of CUDA itself, in both kinds of host: each function of CUDA's under
// its own name behind `ingot_`, as it documents them (https://docs.nvidia.com/cuda), over the
// driver that cuda/driver.h opens. So a package is linked to neither libcuda nor libcudart. Of
// CUDA's runtime library these few need no more than the driver: its streams, events and addresses
// are the driver's, its context is the device's primary one, its error numbers are the same.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <utility>

#include "../cuda/driver.h"

#define ABI extern "C" __attribute__((visibility("default")))

namespace {
using namespace ingot::cuda;
constexpr Status kNotInitialised = 3;

thread_local Status last_error = kSuccess;
thread_local bool ran_out = false;

// What `call` returns, given the driver. Nothing may be thrown across this border.
template <class Call>
Status with_driver(Call call) {
  try {
    const Status status = call(driver());
    ran_out |= status == kOutOfMemory;
    return status;
  } catch (const std::exception&) {
    return kNotInitialised;
  }
}

// The device's primary context on this thread, as CUDA's runtime library makes it. It stays.
Status use(const Driver& cuda, DeviceId device) {
  ContextHandle context = nullptr;
  const Status status = cuda.primary_retain(&context, device);
  return status == kSuccess ? cuda.set_context(context) : status;
}

// A function of the runtime library: with a context, and its failure remembered.
template <class Call>
Status in_context(Call call) {
  const Status status = with_driver([&](const Driver& cuda) {
    ContextHandle context = nullptr;
    cuda.context_current(&context);
    const Status made = context ? kSuccess : use(cuda, 0);
    return made == kSuccess ? call(cuda) : made;
  });
  if (status != kSuccess) last_error = status;
  return status;
}

Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }
}  // namespace

// Of the runtime's: generated code says no more than that a step failed.
ABI int32_t ingot_cuda_ran_out() { return std::exchange(ran_out, false); }

ABI Status ingot_cuGetErrorString(Status error, const char** text) {
  return with_driver([&](const Driver& cuda) { return cuda.error_string(error, text); });
}
ABI Status ingot_cuModuleLoadData(ModuleHandle* module, const void* image) {
  return with_driver([&](const Driver& cuda) { return cuda.module_load(module, image); });
}
ABI Status ingot_cuModuleUnload(ModuleHandle module) {
  return with_driver([&](const Driver& cuda) { return cuda.module_unload(module); });
}
ABI Status ingot_cuModuleGetFunction(FunctionHandle* function, ModuleHandle module,
                                     const char* name) {
  return with_driver(
      [&](const Driver& cuda) { return cuda.module_function(function, module, name); });
}
ABI Status ingot_cuFuncSetAttribute(FunctionHandle function, int32_t attribute, int32_t value) {
  return with_driver(
      [&](const Driver& cuda) { return cuda.function_attribute(function, attribute, value); });
}
ABI Status ingot_cuLaunchKernel(FunctionHandle function, uint32_t grid_x, uint32_t grid_y,
                                uint32_t grid_z, uint32_t block_x, uint32_t block_y,
                                uint32_t block_z, uint32_t shared_bytes, StreamHandle stream,
                                void** arguments, void** extra) {
  return with_driver([&](const Driver& cuda) {
    return cuda.launch(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes,
                       stream, arguments, extra);
  });
}

ABI const char* ingot_cudaGetErrorString(Status error) {
  const char* text = nullptr;
  ingot_cuGetErrorString(error, &text);
  return text ? text : "unknown error, or no CUDA driver";
}
ABI Status ingot_cudaGetLastError() {
  const Status error = last_error;
  last_error = kSuccess;
  return error;
}
ABI Status ingot_cudaGetDevice(DeviceId* device) {
  return in_context([&](const Driver& cuda) { return cuda.context_device(device); });
}
ABI Status ingot_cudaSetDevice(DeviceId device) {
  return in_context([&](const Driver& cuda) {
    DeviceId now = 0;
    const Status status = cuda.context_device(&now);
    return status != kSuccess || now == device ? status : use(cuda, device);
  });
}
ABI Status ingot_cudaMalloc(void** memory, size_t bytes) {
  return in_context(
      [&](const Driver& cuda) { return cuda.allocate(reinterpret_cast<Address*>(memory), bytes); });
}
ABI Status ingot_cudaFree(void* memory) {
  if (!memory) return kSuccess;
  return in_context([&](const Driver& cuda) { return cuda.release(address_of(memory)); });
}
ABI Status ingot_cudaMemcpy(void* to, const void* from, size_t bytes, int32_t) {
  return in_context(
      [&](const Driver& cuda) { return cuda.copy_now(address_of(to), address_of(from), bytes); });
}
ABI Status ingot_cudaEventCreate(EventHandle* event) {
  return in_context([&](const Driver& cuda) { return cuda.event_create(event, 0); });
}
ABI Status ingot_cudaEventDestroy(EventHandle event) {
  return in_context([&](const Driver& cuda) { return cuda.event_destroy(event); });
}
ABI Status ingot_cudaEventRecord(EventHandle event, StreamHandle stream) {
  return in_context([&](const Driver& cuda) { return cuda.event_record(event, stream); });
}
ABI Status ingot_cudaEventQuery(EventHandle event) {
  return in_context([&](const Driver& cuda) { return cuda.event_query(event); });
}
ABI Status ingot_cudaEventSynchronize(EventHandle event) {
  return in_context([&](const Driver& cuda) { return cuda.event_synchronize(event); });
}
