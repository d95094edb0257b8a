// What the tests set and read, initialisation, devices, contexts.
#include <cstdio>
#include <cstdlib>

#include "state.h"

namespace {
using namespace fake_cuda;

void read_environment(Settings& settings) {
  if (const char* value = std::getenv("FAKE_CUDA_DEVICES")) settings.devices = std::atoi(value);
  if (const char* value = std::getenv("FAKE_CUDA_CAPABILITY"))
    settings.capability = std::atoi(value);
}
}  // namespace

API void fake_cuda_reset(const Settings* settings) {
  std::lock_guard lock(gpu().mutex);
  gpu().settings = *settings;
  gpu().sticky = kSuccess;
  Counts& c = gpu().counts;
  c.kernel_launches = c.graph_launches = c.copies_to_device = c.copies_to_host = c.captures = 0;
}
API Counts fake_cuda_counts() {
  std::lock_guard lock(gpu().mutex);
  return gpu().counts;
}

API void fake_cuda_compute(Compute compute) {
  std::lock_guard lock(gpu().mutex);
  gpu().compute = compute;
}
API void fake_cuda_enqueue(void* stream, const std::function<void()>& work) {
  call(Needs::context, [&]() -> Status {
    if (!is_stream(static_cast<Stream*>(stream))) return kInvalidHandle;
    enqueue(*static_cast<Stream*>(stream), [work] { return work(), kSuccess; });
    return kSuccess;
  });
}

API Status cuInit(uint32_t) {
  return call(Needs::nothing, [] {
    if (gpu().process == getpid()) return kSuccess;
    if (gpu().process) return kNotInitialised;
    read_environment(gpu().settings);
    if (gpu().settings.devices == 0) return kNoDevice;
    gpu().process = getpid();
    return kSuccess;
  });
}
API Status cuDriverGetVersion(int32_t* version) {
  return *version = gpu().settings.version, kSuccess;
}
API Status cuGetErrorString(Status status, const char** text) {
  *text = status == kIllegalAddress   ? "an illegal memory access was encountered"
          : status == kLaunchFailed   ? "unspecified launch failure"
          : status == kInvalidContext ? "invalid device context"
          : status == kInvalidValue   ? "invalid argument"
          : status == kNoBinary       ? "no kernel image is available for execution on the device"
          : status == kOutOfResources ? "too many resources requested for launch"
          : status == kCaptureUnsupported ? "operation not permitted when stream is capturing"
          : status == kCaptureInvalidated
              ? "operation failed due to a previous error during capture"
              : "an error of the fake driver";
  return kSuccess;
}
API Status cuDeviceGetCount(int32_t* count) {
  return call(Needs::initialised, [&] { return *count = gpu().settings.devices, kSuccess; });
}
API Status cuDeviceGetName(char* name, int32_t length, int32_t) {
  return call(Needs::initialised, [&] {
    std::snprintf(name, static_cast<size_t>(length), "Fake GPU");
    return kSuccess;
  });
}
API Status cuDeviceGetAttribute(int32_t* value, int32_t attribute, int32_t) {
  return call(Needs::initialised, [&] {
    const int32_t capability = gpu().settings.capability;
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 4;
    return kSuccess;
  });
}
API Status cuDeviceTotalMem_v2(size_t* bytes, int32_t) {
  return call(Needs::initialised, [&] { return *bytes = gpu().settings.memory, kSuccess; });
}
API Status cuDevicePrimaryCtxRetain(void** context, int32_t device) {
  return call(Needs::initialised, [&]() -> Status {
    if (device < 0 || device >= gpu().settings.devices) return kInvalidDevice;
    if (!gpu().arena)
      gpu().arena = static_cast<char*>(
          mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    gpu().counts.contexts++;
    *context = &gpu().context;
    return kSuccess;
  });
}
API Status cuDevicePrimaryCtxRelease_v2(int32_t) {
  return call(Needs::initialised, []() -> Status {
    if (gpu().counts.contexts == 0) return kInvalidContext;
    if (--gpu().counts.contexts > 0) return kSuccess;
    gpu().modules.clear();  // all of it goes; what was not given back before still counts as left
    gpu().streams.clear();
    gpu().allocations.clear();
    return kSuccess;
  });
}
API Status cuCtxPushCurrent_v2(void* context) {
  current.push_back(static_cast<Context*>(context));
  return kSuccess;
}
API Status cuCtxPopCurrent_v2(void** context) {
  if (current.empty()) return kInvalidContext;
  *context = current.back();
  current.pop_back();
  return kSuccess;
}
API Status cuCtxSetCurrent(void* context) {
  if (current.empty()) current.push_back(nullptr);
  current.back() = static_cast<Context*>(context);
  return kSuccess;
}
API Status cuCtxGetCurrent(void** context) {
  *context = current.empty() ? nullptr : current.back();
  return kSuccess;
}
API Status cuCtxGetDevice(int32_t* device) {
  return call(Needs::context, [&] { return *device = 0, kSuccess; });
}
