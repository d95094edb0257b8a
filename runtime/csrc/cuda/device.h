// One GPU as a package uses it: its primary context, one stream on which everything happens in
// order, its memory, and what is made of these. All of it throws Error, and all but the constructor
// want the context current on the calling thread (`Current`).
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "driver.h"

namespace ingot::cuda {
struct DeviceFacts {
  std::string name;
  int capability;  // 90: compute capability 9.0
  int multiprocessors;
  size_t memory;  // bytes
};

// Of all GPUs that the driver shows (CUDA_VISIBLE_DEVICES), without a context on any.
std::vector<DeviceFacts> devices();
// 1000 * major + 10 * minor of the CUDA that the driver knows at most.
int driver_version();
// As people write it: "13.0".
std::string version_text(int version);

class Device {
 public:
  explicit Device(DeviceId id);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFacts& facts() const { return facts_; }
  DeviceId id() const { return id_; }
  StreamHandle stream() const { return stream_; }
  ContextHandle context() const { return context_; }

  struct Memory {
    size_t free, total;
  };
  Memory memory() const;
  // In the stream's order. Host memory that is not Pinned is read before they return, written
  // only after `synchronize`.
  void copy_to_device(void* to, const void* from, size_t bytes) const;
  void copy_to_host(void* to, const void* from, size_t bytes) const;
  void zero(void* memory, size_t bytes) const;
  // Gives back what ops took in the stream's order and have freed, and what graphs that are gone
  // had for theirs.
  void trim() const;
  // Waits until the stream is empty. Throws what kernels did wrong.
  void synchronize() const;

 private:
  DeviceId id_;
  DeviceFacts facts_;
  ContextHandle context_;
  StreamHandle stream_ = nullptr;
  PoolHandle async_pool_ = nullptr;  // null: the device has none
};

// The device's context on this thread, for as long as this lives.
class Current {
 public:
  explicit Current(const Device& device);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
};

// Memory of the GPU, 256-byte aligned.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(size_t bytes, const char* purpose);  // `purpose` is for the sentence where it fails
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  char* data() const { return reinterpret_cast<char*>(address_); }
  size_t bytes() const { return bytes_; }
  // At least so much, its content lost where it grows: what still reads it must have ended.
  void grow(size_t bytes, const char* purpose);

 private:
  Address address_ = 0;
  size_t bytes_ = 0;
};

// Memory of the host that the GPU reads and writes by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer();

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void grow(size_t bytes);  // as DeviceBuffer's

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

// A point in a stream.
class Event {
 public:
  Event();
  Event(Event&& other) noexcept;
  ~Event();
  Event& operator=(Event&& other) = delete;

  void record(const Device& device) const;
  void wait() const;
  // Nanoseconds to a later event; both have been waited for. The clock's step is half a
  // microsecond.
  int64_t until(const Event& later) const;

 private:
  EventHandle handle_ = nullptr;
};

// What a stream was given once, to be given again at the cost of one launch: a CUDA graph.
class Replay {
 public:
  // Captures what `enqueue` enqueues. Throws what it throws, and where the driver refuses to
  // capture some of it.
  template <class Enqueue>
  Replay(const Device& device, Enqueue enqueue) {
    Capture capture(device);
    enqueue();
    exec_ = capture.finish();
  }
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  void launch(const Device& device) const;

 private:
  class Capture {
   public:
    explicit Capture(const Device& device);
    ~Capture();  // nothing is kept where it was not finished
    GraphExecHandle finish();

   private:
    StreamHandle stream_;
    bool open_ = true;
  };
  GraphExecHandle exec_ = nullptr;
};
}  // namespace ingot::cuda
