// Names, types, numbers and rules are those of the CUDA Driver API
// (https://docs.nvidia.com/cuda/cuda-driver-api); here is what Ingot calls, and what it must not.
#include "fake_driver.h"

#include <sys/mman.h>

#include <algorithm>
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

#include "cubin.h"

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
  kNoBinary = 209,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kOutOfResources = 701,
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

// A kernel of a loaded module: of the test's, or of machine code.
struct Function {
  const Kernel* kernel = nullptr;
  MachineCode code;
  int32_t dynamic_bytes = 48 << 10;  // of shared memory, that a launch may ask for
};
using Module = std::vector<Function>;

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
  std::map<Module*, std::unique_ptr<Module>> modules;
  Compute compute = nullptr;
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

bool is_function(const Function* function) {
  for (const auto& [module, owned] : gpu().modules)
    if (!module->empty() && function >= module->data() &&
        function < module->data() + module->size())
      return true;
  return false;
}

// What a block may have at most (CUDA C++ Programming Guide, "Compute Capabilities").
int64_t most_shared_bytes() {
  const int32_t capability = gpu().settings.capability;
  return int64_t{capability >= 90 ? 227 : capability == 80 ? 163 : 99} << 10;
}

Status check_launch(const Function& function, const std::vector<uint32_t>& grid,
                    const std::vector<uint32_t>& block, uint32_t shared_bytes) {
  constexpr uint32_t kMostBlocks = 65535;  // along y and z
  const uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  if (grid[0] == 0 || grid[0] > INT32_MAX || grid[1] == 0 || grid[1] > kMostBlocks ||
      grid[2] == 0 || grid[2] > kMostBlocks || threads == 0 || threads > 1024)
    return kInvalidValue;
  const MachineCode& code = function.code;
  if (code.threads && code.threads != threads) return kInvalidValue;
  if (shared_bytes > static_cast<uint32_t>(function.dynamic_bytes) ||
      int64_t{code.shared_bytes} + shared_bytes > most_shared_bytes())
    return kInvalidValue;
  // Registers are given to warps in units of 256.
  const uint64_t of_warp = (uint64_t{code.registers} * 32 + 255) / 256 * 256;
  return (threads + 31) / 32 * of_warp > 65536 ? kOutOfResources : kSuccess;
}

std::vector<Parameter> parameters_of(const Function& function) {
  if (!function.kernel) return function.code.parameters;
  std::vector<Parameter> found;  // of pointers within structures nothing is known
  for (const size_t bytes : function.kernel->argument_bytes)
    if (bytes) found.push_back({bytes, false});
  return found;
}

// Whether a kernel's argument is an address on the GPU, or null: some are never followed.
bool is_global(const std::vector<char>& value) {
  Address address = 0;
  std::memcpy(&address, value.data(), sizeof address);
  return address == 0 || is_allocated(address, 1);
}

int32_t compute(const Function& function, const std::vector<uint32_t>& grid,
                std::vector<void*>& arguments) {
  if (function.kernel) return function.kernel->run(arguments.data());
  if (!gpu().compute) return 0;
  return gpu().compute(function.code.name.c_str(), grid.data(), arguments.data(), arguments.size());
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

API void fake_cuda_compute(Compute compute) {
  std::lock_guard lock(gpu().mutex);
  gpu().compute = compute;
}
API void fake_cuda_enqueue(void* stream, const std::function<void()>& work) {
  call(Needs::context, [&] {
    enqueue(*static_cast<Stream*>(stream), [work] { return work(), kSuccess; });
    return kSuccess;
  });
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
API Status cuDeviceGraphMemTrim(int32_t) { return kSuccess; }
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

API Status cuModuleLoadData(Module** module, const void* image) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (!image) return kInvalidImage;
    auto made = std::make_unique<Module>();
    if (is_cubin(image)) {
      const Cubin cubin = read_cubin(image);
      const int32_t here = gpu().settings.capability;
      if (cubin.capability / 10 != here / 10 || cubin.capability > here) return kNoBinary;
      for (const MachineCode& code : cubin.kernels) made->push_back({nullptr, code});
    } else {
      const auto* kernels = static_cast<const Image*>(image);
      for (size_t i = 0; i < kernels->count; i++) made->push_back({&kernels->kernels[i], {}});
    }
    *module = made.get();
    gpu().modules[made.get()] = std::move(made);
    gpu().counts.modules++;
    return kSuccess;
  });
}
API Status cuModuleUnload(Module* module) {
  return call(Needs::context, [&]() -> Status {
    run_all();
    if (gpu().modules.erase(module) == 0) return kInvalidHandle;
    return gpu().counts.modules--, kSuccess;
  });
}
API Status cuModuleGetFunction(Function** function, Module* module, const char* name) {
  return call(Needs::context, [&]() -> Status {
    if (gpu().modules.count(module) == 0) return kInvalidHandle;
    for (Function& found : *module)
      if (name == (found.kernel ? found.kernel->name : found.code.name))
        return *function = &found, kSuccess;
    return kNotFound;
  });
}
API Status cuFuncSetAttribute(Function* function, int32_t attribute, int32_t value) {
  return call(Needs::context, [&]() -> Status {
    if (!is_function(function)) return kInvalidHandle;
    constexpr int32_t kDynamicBytes = 8;
    if (attribute != kDynamicBytes) return kInvalidValue;
    const auto all = static_cast<int64_t>(function->code.shared_bytes) + value;
    if (value < 0 || all > most_shared_bytes()) return kInvalidValue;
    return function->dynamic_bytes = value, kSuccess;
  });
}
API Status cuLaunchKernel(Function* function, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z,
                          uint32_t block_x, uint32_t block_y, uint32_t block_z,
                          uint32_t shared_bytes, Stream* stream, void** arguments, void** extra) {
  return call(Needs::context, [&]() -> Status {
    if (!is_function(function) || gpu().streams.count(stream) == 0) return kInvalidHandle;
    if (fails(gpu().settings.failing_launch)) return kOutOfMemory;
    const std::vector<uint32_t> grid = {grid_x, grid_y, grid_z};
    const Status status = check_launch(*function, grid, {block_x, block_y, block_z}, shared_bytes);
    if (status != kSuccess || extra) return status != kSuccess ? status : kInvalidValue;
    // Arguments are read before the call returns.
    std::vector<std::vector<char>> values;
    for (const Parameter& parameter : parameters_of(*function)) {
      const auto* at = static_cast<const char*>(arguments[values.size()]);
      if (!at) return kInvalidValue;
      values.emplace_back(at, at + parameter.bytes);
      if (parameter.is_pointer && !is_global(values.back())) return kIllegalAddress;
    }
    enqueue(*stream, [function, grid, values]() mutable -> Status {
      std::vector<void*> pointers;
      for (std::vector<char>& value : values) pointers.push_back(value.data());
      return compute(*function, grid, pointers) == 0 ? kSuccess : kLaunchFailed;
    });
    gpu().counts.kernel_launches++;
    return kSuccess;
  });
}
