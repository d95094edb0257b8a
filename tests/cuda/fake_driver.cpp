// Names, types, numbers and rules are those of the CUDA Driver API
// (https://docs.nvidia.com/cuda/cuda-driver-api); here is what Ingot calls, and what it must not.
#include "fake_driver.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {
using namespace fake_cuda;
using Status = int32_t;
using Address = uint64_t;
using Work = std::function<Status()>;

enum : Status {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialised = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchFailed = 719,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901
};

struct Stream {
  std::deque<Work> queue;
  std::vector<Work>* captured = nullptr;
  bool invalidated = false;
};
struct Event {
  Stream* stream = nullptr;
  bool done = true;
  std::chrono::steady_clock::time_point time;
};
struct Graph {
  std::vector<Work> work;
};
struct Context {};

constexpr size_t kArena = size_t{4} << 30, kAlignment = 256;

struct Gpu {
  std::recursive_mutex mutex;
  Settings settings;
  Counts counts{};
  bool initialised = false;
  Status sticky = kSuccess;  // of a kernel that failed: the context is lost
  char* arena = nullptr;
  std::map<Address, size_t> allocations;
  std::map<char*, std::unique_ptr<char[]>> pinned;
  std::map<char*, size_t> pinned_bytes;
  std::set<Stream*> streams;
  Context context;
};
Gpu& gpu() {
  static auto* const one = new Gpu;
  return *one;
}
thread_local std::vector<Context*> current;
thread_local Stream* capturing = nullptr;

// Whether the n-th call is reached that is to fail.
bool fails(int64_t& countdown) { return countdown > 0 && --countdown == 0; }

bool is_device(Address address) {
  const auto base = reinterpret_cast<Address>(gpu().arena);
  return base && address >= base && address < base + kArena;
}
// Whether all of it lies in one allocation.
bool is_allocated(Address address, size_t bytes) {
  auto found = gpu().allocations.upper_bound(address);
  if (found == gpu().allocations.begin()) return false;
  --found;
  return address + bytes <= found->first + found->second;
}
bool is_pinned(const void* memory, size_t bytes) {
  auto* at = static_cast<char*>(const_cast<void*>(memory));
  auto found = gpu().pinned_bytes.upper_bound(at);
  if (found == gpu().pinned_bytes.begin()) return false;
  --found;
  return at + bytes <= found->first + found->second;
}

void protect(int how) { mprotect(gpu().arena, kArena, how); }

Status run(Stream& stream) {
  while (!stream.queue.empty()) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (gpu().sticky != kSuccess) continue;
    protect(PROT_READ | PROT_WRITE);
    gpu().sticky = work();
    protect(PROT_NONE);
  }
  return gpu().sticky;
}
Status run_all() {
  for (Stream* stream : gpu().streams) run(*stream);
  return gpu().sticky;
}
void enqueue(Stream& stream, Work work) {
  if (stream.captured)
    stream.captured->push_back(std::move(work));
  else
    stream.queue.push_back(std::move(work));
}

// What a capturing thread may not call: it ends the capture.
bool spoils_capture() {
  if (!capturing) return false;
  capturing->invalidated = true;
  return true;
}

// Every call: one at a time, in a context where it needs one.
enum class Needs { nothing, initialised, context };
template <class Body>
Status call(Needs needs, Body body) {
  std::lock_guard lock(gpu().mutex);
  if (needs != Needs::nothing && !gpu().initialised) return kNotInitialised;
  if (needs == Needs::context && (current.empty() || !current.back())) return kInvalidContext;
  if (needs == Needs::context && gpu().sticky != kSuccess) return gpu().sticky;
  return body();
}

Status copy(Address to, Address from, size_t bytes, Stream& stream) {
  if (fails(gpu().settings.failing_copy)) return kIllegalAddress;
  const bool to_gpu = is_device(to), from_gpu = is_device(from);
  if ((to_gpu && !is_allocated(to, bytes)) || (from_gpu && !is_allocated(from, bytes)))
    return kInvalidValue;
  if (to_gpu) gpu().counts.copies_to_device++;
  if (from_gpu && !to_gpu) gpu().counts.copies_to_host++;
  auto* target = reinterpret_cast<char*>(to);
  const auto* source = reinterpret_cast<const char*>(from);
  if (!from_gpu && !is_pinned(source, bytes)) {  // read before the call returns
    auto staged = std::make_shared<std::vector<char>>(source, source + bytes);
    enqueue(stream, [=] { return std::memcpy(target, staged->data(), bytes), kSuccess; });
    return kSuccess;
  }
  enqueue(stream, [=] { return std::memcpy(target, source, bytes), kSuccess; });
  // Written before the call returns.
  return !to_gpu && !is_pinned(target, bytes) && !stream.captured ? run(stream) : kSuccess;
}

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

API Status cuInit(uint32_t) {
  return call(Needs::nothing, [] {
    if (!gpu().initialised) read_environment(gpu().settings);
    if (gpu().settings.devices == 0) return kNoDevice;
    gpu().initialised = true;
    return kSuccess;
  });
}
API Status cuDriverGetVersion(int32_t* version) {
  *version = 13000;
  return kSuccess;
}
API Status cuGetErrorString(Status status, const char** text) {
  *text = status == kIllegalAddress       ? "an illegal memory access was encountered"
          : status == kLaunchFailed       ? "unspecified launch failure"
          : status == kInvalidContext     ? "invalid device context"
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
  std::snprintf(name, static_cast<size_t>(length), "Fake GPU");
  return kSuccess;
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
  return call(Needs::initialised, [] { return gpu().counts.contexts--, kSuccess; });
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

API Status cuMemGetInfo_v2(size_t* free, size_t* total) {
  return call(Needs::context, [&] {
    *total = gpu().settings.memory;
    *free = *total - std::min(*total, gpu().counts.bytes);
    return kSuccess;
  });
}
API Status cuMemAlloc_v2(Address* address, size_t bytes) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (bytes == 0) return kInvalidValue;
    if (fails(gpu().settings.failing_allocation)) return kOutOfMemory;
    if (bytes > gpu().settings.memory - std::min(gpu().settings.memory, gpu().counts.bytes))
      return kOutOfMemory;
    auto at = reinterpret_cast<Address>(gpu().arena);  // the first gap, and a guard behind each
    for (const auto& [begin, size] : gpu().allocations) {
      if (begin - at >= bytes + kAlignment) break;
      at = (begin + size + 2 * kAlignment - 1) / kAlignment * kAlignment;
    }
    gpu().allocations[at] = bytes;
    gpu().counts.allocations++;
    gpu().counts.bytes += bytes;
    protect(PROT_READ | PROT_WRITE);
    std::memset(reinterpret_cast<void*>(at), 0xcb, bytes);  // nobody may rely on zeros
    protect(PROT_NONE);
    *address = at;
    return kSuccess;
  });
}
API Status cuMemFree_v2(Address address) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    const auto found = gpu().allocations.find(address);
    if (found == gpu().allocations.end()) return kInvalidValue;
    run_all();
    gpu().counts.bytes -= found->second;
    gpu().counts.allocations--;
    gpu().allocations.erase(found);
    return kSuccess;
  });
}
API Status cuDeviceGetDefaultMemPool(void** pool, int32_t) { return *pool = &gpu(), kSuccess; }
API Status cuMemPoolSetAttribute(void*, int32_t, void*) { return kSuccess; }
API Status cuMemPoolTrimTo(void*, size_t) { return kSuccess; }
API Status cuMemAllocHost_v2(void** memory, size_t bytes) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    auto made = std::make_unique<char[]>(bytes);
    char* at = made.get();
    gpu().pinned[at] = std::move(made);
    gpu().pinned_bytes[at] = bytes;
    gpu().counts.pinned++;
    *memory = at;
    return kSuccess;
  });
}
API Status cuMemFreeHost(void* memory) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    run_all();
    if (gpu().pinned.erase(static_cast<char*>(memory)) == 0) return kInvalidValue;
    gpu().pinned_bytes.erase(static_cast<char*>(memory));
    gpu().counts.pinned--;
    return kSuccess;
  });
}
API Status cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
  return call(Needs::context,
              [&] { return copy(to, reinterpret_cast<Address>(from), bytes, *stream); });
}
API Status cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
  return call(Needs::context,
              [&] { return copy(reinterpret_cast<Address>(to), from, bytes, *stream); });
}
API Status cuMemcpyAsync(Address to, Address from, size_t bytes, Stream* stream) {
  return call(Needs::context, [&] { return copy(to, from, bytes, *stream); });
}
API Status cuMemcpy(Address to, Address from, size_t bytes) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    Stream now;
    run_all();
    const Status status = copy(to, from, bytes, now);
    return status == kSuccess ? run(now) : status;
  });
}
API Status cuMemsetD8Async(Address to, uint8_t value, size_t bytes, Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (!is_allocated(to, bytes)) return kInvalidValue;
    enqueue(*stream,
            [=] { return std::memset(reinterpret_cast<void*>(to), value, bytes), kSuccess; });
    return kSuccess;
  });
}

API Status cuStreamCreate(Stream** stream, uint32_t) {
  return call(Needs::context, [&] {
    gpu().streams.insert(*stream = new Stream);
    gpu().counts.streams++;
    return kSuccess;
  });
}
API Status cuStreamDestroy_v2(Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (gpu().streams.erase(stream) == 0) return kInvalidHandle;
    run(*stream);
    delete stream;
    gpu().counts.streams--;
    return kSuccess;
  });
}
API Status cuStreamSynchronize(Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture() || stream->captured) return kCaptureUnsupported;
    return run(*stream);
  });
}

API Status cuEventCreate(Event** event, uint32_t) {
  return call(Needs::context, [&] {
    *event = new Event;
    gpu().counts.events++;
    return kSuccess;
  });
}
API Status cuEventDestroy_v2(Event* event) {
  return call(Needs::context, [&] {
    run_all();
    delete event;
    gpu().counts.events--;
    return kSuccess;
  });
}
API Status cuEventRecord(Event* event, Stream* stream) {
  return call(Needs::context, [&] {
    event->stream = stream;
    event->done = false;
    enqueue(*stream, [=] {
      event->done = true;
      event->time = std::chrono::steady_clock::now();
      return kSuccess;
    });
    return kSuccess;
  });
}
API Status cuEventSynchronize(Event* event) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    return event->done ? gpu().sticky : run(*event->stream);
  });
}
API Status cuEventQuery(Event* event) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    return event->done ? kSuccess : run(*event->stream);
  });
}
API Status cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
  return call(Needs::context, [&]() -> Status {
    if (!from->done || !to->done) return kNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return kSuccess;
  });
}

API Status cuStreamBeginCapture_v2(Stream* stream, int32_t) {
  return call(Needs::context, [&]() -> Status {
    if (stream->captured) return kInvalidValue;
    stream->captured = new std::vector<Work>;
    stream->invalidated = fails(gpu().settings.failing_capture);
    capturing = stream;
    gpu().counts.captures++;
    return kSuccess;
  });
}
API Status cuStreamEndCapture(Stream* stream, Graph** graph) {
  return call(Needs::context, [&]() -> Status {
    if (!stream->captured) return kInvalidValue;
    const std::unique_ptr<std::vector<Work>> work(stream->captured);
    stream->captured = nullptr;
    capturing = nullptr;
    *graph = nullptr;
    if (stream->invalidated) return kCaptureInvalidated;
    *graph = new Graph{std::move(*work)};
    gpu().counts.graphs++;
    return kSuccess;
  });
}
API Status cuGraphInstantiateWithFlags(Graph** exec, Graph* graph, uint64_t) {
  return call(Needs::context, [&] {
    *exec = new Graph(*graph);
    gpu().counts.graphs++;
    return kSuccess;
  });
}
API Status cuGraphLaunch(Graph* exec, Stream* stream) {
  return call(Needs::context, [&] {
    for (const Work& work : exec->work) enqueue(*stream, work);
    gpu().counts.graph_launches++;
    return kSuccess;
  });
}
API Status cuGraphDestroy(Graph* graph) {
  return call(Needs::context, [&] {
    delete graph;
    gpu().counts.graphs--;
    return kSuccess;
  });
}
API Status cuGraphExecDestroy(Graph* exec) { return cuGraphDestroy(exec); }

API Status cuModuleLoadData(const Image** module, const void* image) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (!image) return kInvalidImage;
    *module = static_cast<const Image*>(image);
    gpu().counts.modules++;
    return kSuccess;
  });
}
API Status cuModuleUnload(const Image*) {
  return call(Needs::context, [] { return gpu().counts.modules--, kSuccess; });
}
API Status cuModuleGetFunction(const Kernel** function, const Image* module, const char* name) {
  return call(Needs::context, [&]() -> Status {
    for (size_t i = 0; i < module->count; i++)
      if (std::strcmp(module->kernels[i].name, name) == 0)
        return *function = &module->kernels[i], kSuccess;
    return kNotFound;
  });
}
API Status cuFuncSetAttribute(const Kernel*, int32_t, int32_t) { return kSuccess; }
API Status cuLaunchKernel(const Kernel* kernel, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                          uint32_t, uint32_t, Stream* stream, void** arguments, void**) {
  return call(Needs::context, [&] {
    // Arguments are read before the call returns.
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < 8 && kernel->argument_bytes[i]; i++) {
      const auto* at = static_cast<const char*>(arguments[i]);
      values.emplace_back(at, at + kernel->argument_bytes[i]);
    }
    enqueue(*stream, [kernel, values]() mutable -> Status {
      std::vector<void*> pointers;
      for (std::vector<char>& value : values) pointers.push_back(value.data());
      return kernel->run(pointers.data()) == 0 ? kSuccess : kLaunchFailed;
    });
    gpu().counts.kernel_launches++;
    return kSuccess;
  });
}
