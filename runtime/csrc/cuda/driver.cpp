#include "driver.h"

#include <dlfcn.h>

#include <string>

#include "../error.h"

namespace ingot::cuda {
namespace {
std::string described(const Driver& found, Status status) {
  const char* text = nullptr;
  if (found.error_string(status, &text) != kSuccess || !text) text = "unknown";
  return std::string(text) + " (CUDA error " + std::to_string(status) + ")";
}

Driver open_driver() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    bad_package(
        "this machine has no CUDA driver (libcuda.so.1); install NVIDIA's, or export the "
        "package with --device cpu");
  Driver found{};
  found.process = getpid();
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (!function)
      bad_package(std::string("the CUDA driver of this machine is too old: it lacks ") + name +
                  "; install a newer one");
  };
  find("cuInit", found.init);
  find("cuDriverGetVersion", found.driver_version);
  find("cuGetErrorString", found.error_string);
  find("cuDeviceGetCount", found.device_count);
  find("cuDeviceGetName", found.device_name);
  find("cuDeviceGetAttribute", found.device_attribute);
  find("cuDeviceTotalMem_v2", found.device_memory);
  find("cuDevicePrimaryCtxRetain", found.primary_retain);
  find("cuCtxPushCurrent_v2", found.push_context);
  find("cuCtxPopCurrent_v2", found.pop_context);
  find("cuMemGetInfo_v2", found.memory_info);
  find("cuMemAlloc_v2", found.allocate);
  find("cuMemFree_v2", found.release);
  find("cuDeviceGetDefaultMemPool", found.default_pool);
  find("cuMemPoolSetAttribute", found.pool_attribute);
  find("cuMemPoolTrimTo", found.pool_trim);
  find("cuDeviceGraphMemTrim", found.graph_memory_trim);
  find("cuMemAllocHost_v2", found.allocate_host);
  find("cuMemFreeHost", found.release_host);
  find("cuMemcpyHtoDAsync_v2", found.copy_to_device);
  find("cuMemcpyDtoHAsync_v2", found.copy_to_host);
  find("cuMemcpyAsync", found.copy);
  find("cuMemsetD8Async", found.fill);
  find("cuStreamCreate", found.stream_create);
  find("cuStreamDestroy_v2", found.stream_destroy);
  find("cuStreamSynchronize", found.stream_synchronize);
  find("cuEventCreate", found.event_create);
  find("cuEventDestroy_v2", found.event_destroy);
  find("cuEventRecord", found.event_record);
  find("cuEventSynchronize", found.event_synchronize);
  find("cuEventElapsedTime", found.event_elapsed);
  find("cuStreamBeginCapture_v2", found.capture_begin);
  find("cuStreamEndCapture", found.capture_end);
  find("cuGraphInstantiateWithFlags", found.graph_instantiate);
  find("cuGraphLaunch", found.graph_launch);
  find("cuGraphExecDestroy", found.graph_exec_destroy);
  find("cuGraphDestroy", found.graph_destroy);
  find("cuCtxGetDevice", found.context_device);
  find("cuCtxGetCurrent", found.context_current);
  find("cuCtxSetCurrent", found.set_context);
  find("cuMemcpy", found.copy_now);
  find("cuEventQuery", found.event_query);
  find("cuModuleLoadData", found.module_load);
  find("cuModuleUnload", found.module_unload);
  find("cuModuleGetFunction", found.module_function);
  find("cuFuncSetAttribute", found.function_attribute);
  find("cuLaunchKernel", found.launch);
  const Status status = found.init(0);
  int32_t devices = 0;
  if (status == kNoDevice ||
      (status == kSuccess && found.device_count(&devices) == kSuccess && devices == 0))
    bad_package(
        "the CUDA driver finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES, or "
        "export the package with --device cpu");
  if (status != kSuccess)
    bad_package("the CUDA driver does not start: " + described(found, status) +
                "; look at nvidia-smi");
  return found;
}
}  // namespace

const Driver& driver() {
  static const Driver found = open_driver();
  return found;
}

void check(Status status, const char* what) {
  if (status == kSuccess) return;
  if (getpid() != driver().process)
    bad_input(
        "CUDA does not work in a process that was forked from one that uses it; open the package "
        "in a process of its own (of Python's multiprocessing: \"spawn\")");
  if (status == kOutOfMemory)
    throw Error(INGOT_NO_SPACE, std::string("out of memory: ") + what +
                                    " failed; end what else uses the GPU, or ask for a smaller KV "
                                    "cache (kv_tokens) or a package with smaller weights");
  throw Error(INGOT_FAILED,
              std::string(what) + " failed on the GPU: " + described(driver(), status));
}
}  // namespace ingot::cuda
