#include "device.h"

#include <map>
#include <mutex>
#include <utility>

namespace ingot::cuda {
namespace {
Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }

int32_t attribute(int32_t which, DeviceId id) {
  int32_t value = 0;
  check(driver().device_attribute(&value, which, id), "asking for the GPU's properties");
  return value;
}

DeviceFacts facts_of(DeviceId id) {
  char name[128] = "";
  size_t memory = 0;
  check(driver().device_name(name, sizeof name, id), "asking for the GPU's name");
  check(driver().device_memory(&memory, id), "asking for the GPU's memory");
  return {name, 10 * attribute(kCapabilityMajor, id) + attribute(kCapabilityMinor, id),
          attribute(kMultiprocessors, id), memory};
}

// The device's primary context, which this process keeps: generated code and the ops load kernels
// into it once, and are not told where it ends and another begins.
ContextHandle context_of(DeviceId id) {
  static std::mutex mutex;
  static std::map<DeviceId, ContextHandle> kept;
  const std::lock_guard lock(mutex);
  ContextHandle& context = kept[id];
  if (!context) check(driver().primary_retain(&context, id), "making a context");
  return context;
}
}  // namespace

std::vector<DeviceFacts> devices() {
  int32_t count = 0;
  check(driver().device_count(&count), "counting the GPUs");
  std::vector<DeviceFacts> found;
  for (DeviceId id = 0; id < count; id++) found.push_back(facts_of(id));
  return found;
}

int driver_version() {
  int32_t version = 0;
  check(driver().driver_version(&version), "asking for the driver's version");
  return version;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Device::Device(DeviceId id) : id_(id), facts_(facts_of(id)), context_(context_of(id)) {
  const Current current(*this);
  check(driver().stream_create(&stream_, kStreamNonBlocking), "making a stream");
  // By default each wait for the stream would give the ops' memory back to the system.
  uint64_t all = UINT64_MAX;
  if (driver().default_pool(&async_pool_, id_) != kSuccess ||
      driver().pool_attribute(async_pool_, kPoolReleaseThreshold, &all) != kSuccess)
    async_pool_ = nullptr;
}

Device::~Device() {
  const Current current(*this);
  driver().stream_destroy(stream_);
}

Device::Memory Device::memory() const {
  Memory found{};
  check(driver().memory_info(&found.free, &found.total), "asking for free memory");
  return found;
}

void Device::copy_to_device(void* to, const void* from, size_t bytes) const {
  if (bytes)
    check(driver().copy_to_device(address_of(to), from, bytes, stream_), "copying to the GPU");
}

void Device::copy_to_host(void* to, const void* from, size_t bytes) const {
  if (bytes)
    check(driver().copy_to_host(to, address_of(from), bytes, stream_), "copying from the GPU");
}

void Device::zero(void* memory, size_t bytes) const {
  if (bytes) check(driver().fill(address_of(memory), 0, bytes, stream_), "clearing memory");
}

void Device::trim() const {
  if (!async_pool_) return;
  driver().pool_trim(async_pool_, 0);
  driver().graph_memory_trim(id_);
}

void Device::synchronize() const { check(driver().stream_synchronize(stream_), "a step"); }

// A failure here shows in the next call, which has no context.
Current::Current(const Device& device) { driver().push_context(device.context()); }
Current::~Current() {
  ContextHandle before = nullptr;
  driver().pop_context(&before);
}

DeviceBuffer::DeviceBuffer(size_t bytes, const char* purpose) : bytes_(bytes) {
  if (bytes) check(driver().allocate(&address_, bytes), purpose);
}
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
DeviceBuffer::~DeviceBuffer() {
  if (address_) driver().release(address_);
}
void DeviceBuffer::grow(size_t bytes, const char* purpose) {
  if (bytes <= bytes_) return;
  *this = {};
  *this = DeviceBuffer(bytes + bytes / 2, purpose);
}

PinnedBuffer::PinnedBuffer(size_t bytes) : bytes_(bytes) {
  void* memory = nullptr;
  if (bytes) check(driver().allocate_host(&memory, bytes), "taking pinned memory of the host");
  data_ = static_cast<char*>(memory);
}
PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
PinnedBuffer::~PinnedBuffer() {
  if (data_) driver().release_host(data_);
}
void PinnedBuffer::grow(size_t bytes) {
  if (bytes <= bytes_) return;
  *this = {};
  *this = PinnedBuffer(bytes + bytes / 2);
}

Event::Event() { check(driver().event_create(&handle_, 0), "making an event"); }
Event::Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
Event::~Event() {
  if (handle_) driver().event_destroy(handle_);
}
void Event::record(const Device& device) const {
  check(driver().event_record(handle_, device.stream()), "recording an event");
}
void Event::wait() const { check(driver().event_synchronize(handle_), "a step"); }
int64_t Event::until(const Event& later) const {
  float milliseconds = 0;
  check(driver().event_elapsed(&milliseconds, handle_, later.handle_), "reading an event");
  return static_cast<int64_t>(double{milliseconds} * 1e6);
}

Replay::Capture::Capture(const Device& device) : stream_(device.stream()) {
  check(driver().capture_begin(stream_, kCaptureThreadLocal), "beginning a CUDA graph");
}
Replay::Capture::~Capture() {
  GraphHandle graph = nullptr;
  if (open_ && driver().capture_end(stream_, &graph) == kSuccess && graph)
    driver().graph_destroy(graph);
}
GraphExecHandle Replay::Capture::finish() {
  GraphHandle graph = nullptr;
  GraphExecHandle exec = nullptr;
  open_ = false;
  check(driver().capture_end(stream_, &graph), "ending a CUDA graph");
  const Status status = driver().graph_instantiate(&exec, graph, 0);
  driver().graph_destroy(graph);
  check(status, "preparing a CUDA graph");
  return exec;
}
Replay::~Replay() { driver().graph_exec_destroy(exec_); }
void Replay::launch(const Device& device) const {
  check(driver().graph_launch(exec_, device.stream()), "launching a CUDA graph");
}
}  // namespace ingot::cuda
