// What the fake driver's parts share: the GPU there is, and how a call is made. Names, types,
// numbers and rules are those of the CUDA Driver API
// (https://docs.nvidia.com/cuda/cuda-driver-api); here is what Ingot calls, and what it must not.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "cubin.h"
#include "fake_driver.h"

#define API extern "C" __attribute__((visibility("default")))

namespace fake_cuda {
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
  kContextDestroyed = 709,
  kLaunchFailed = 719,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCapturedEvent = 907,
  kCaptureWrongThread = 908
};

struct Stream {
  std::deque<Work> queue;
  std::vector<Work>* captured = nullptr;
  std::thread::id capturer;
  bool invalidated = false;
};
struct Event {
  Stream* stream = nullptr;
  bool done = true;
  bool captured = false;  // recorded last in a capture: it is not to be asked
  std::chrono::steady_clock::time_point time;
};
struct Graph {
  std::vector<Work> work;
};
// Host memory that copies read and write by themselves: each that is still to run holds it.
struct Pinned {
  size_t bytes = 0;
  std::shared_ptr<char[]> memory;
};
struct Context {};

// A kernel of a loaded module: of the test's, or of machine code.
struct Function {
  const Kernel* kernel = nullptr;
  MachineCode code;
  int32_t dynamic_bytes = 48 << 10;  // of shared memory, that a launch may ask for
};
using Module = std::vector<Function>;

constexpr size_t kArena = size_t{4} << 30;

struct Gpu {
  std::recursive_mutex mutex;
  Settings settings;
  Counts counts{};
  pid_t process = 0;         // that initialised it; a child of its has no driver
  Status sticky = kSuccess;  // of a kernel that failed: the context is lost
  char* arena = nullptr;
  std::map<Address, size_t> allocations;
  std::map<const char*, Pinned> pinned;
  std::set<Stream*> streams;
  std::map<Module*, std::unique_ptr<Module>> modules;
  Compute compute = nullptr;
  Context context;
};
Gpu& gpu();
extern thread_local std::vector<Context*> current;
extern thread_local Stream* capturing;

// Whether the n-th call is reached that is to fail.
bool fails(int64_t& countdown);
// Whether all of it lies in one allocation.
bool is_allocated(Address address, size_t bytes);
// Of the GPU's memory.
void protect(int how);

// Whether there is such a stream; a null one would be CUDA's own, which waits for all others.
bool is_stream(const Stream* stream);
Status run(Stream& stream);
Status run_all();
void enqueue(Stream& stream, Work work);
// What a capturing thread may not call: it ends the capture.
bool spoils_capture();

// Every call: one at a time, in a context where it needs one.
enum class Needs { nothing, initialised, context };
template <class Body>
Status call(Needs needs, Body body) {
  std::lock_guard lock(gpu().mutex);
  if (needs != Needs::nothing && gpu().process != getpid()) return kNotInitialised;
  if (needs == Needs::context && (current.empty() || !current.back())) return kInvalidContext;
  if (needs == Needs::context && gpu().counts.contexts == 0) return kContextDestroyed;
  if (needs == Needs::context && gpu().sticky != kSuccess) return gpu().sticky;
  return body();
}
}  // namespace fake_cuda
