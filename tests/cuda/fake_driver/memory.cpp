// Allocations and copies.
#include <algorithm>
#include <cstring>

#include "state.h"

namespace {
using namespace fake_cuda;
constexpr size_t kAlignment = 256;

bool is_device(Address address) {
  const auto base = reinterpret_cast<Address>(gpu().arena);
  return base && address >= base && address < base + kArena;
}
// The pinned memory that all of it lies in, or null.
std::shared_ptr<char[]> pinned(const void* memory, size_t bytes) {
  const auto* at = static_cast<const char*>(memory);
  auto found = gpu().pinned.upper_bound(at);
  if (found == gpu().pinned.begin()) return nullptr;
  --found;
  return at + bytes <= found->first + found->second.bytes ? found->second.memory : nullptr;
}

// Nobody may rely on zeros in memory that is new, nor on anything in what was given back.
void fill(Address at, size_t bytes) {
  protect(PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void*>(at), 0xcb, bytes);
  protect(PROT_NONE);
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
  const auto held = pinned(to_gpu ? source : target, bytes);
  const bool is_pageable = !(to_gpu && from_gpu) && !held;
  // A replay would read or write there, whatever is there by then.
  if (is_pageable && stream.captured) return stream.invalidated = true, kCaptureUnsupported;
  if (is_pageable && to_gpu) {  // read before the call returns
    auto staged = std::make_shared<std::vector<char>>(source, source + bytes);
    enqueue(stream, [=] { return std::memcpy(target, staged->data(), bytes), kSuccess; });
    return kSuccess;
  }
  enqueue(stream, [=] { return (void)held, std::memcpy(target, source, bytes), kSuccess; });
  return is_pageable ? run(stream) : kSuccess;  // written before the call returns
}
}  // namespace

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
    fill(at, bytes);
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
    fill(address, found->second);
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
    const std::shared_ptr<char[]> made(new char[bytes]);
    gpu().pinned[made.get()] = {bytes, made};
    gpu().counts.pinned++;
    *memory = made.get();
    return kSuccess;
  });
}
API Status cuMemFreeHost(void* memory) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    const auto found = gpu().pinned.find(static_cast<char*>(memory));
    if (found == gpu().pinned.end()) return kInvalidValue;
    if (found->second.memory.use_count() > 1) return kInvalidValue;  // a copy is still to come
    gpu().pinned.erase(found);
    gpu().counts.pinned--;
    return kSuccess;
  });
}
API Status cuMemcpyAsync(Address to, Address from, size_t bytes, Stream* stream) {
  return call(Needs::context,
              [&] { return is_stream(stream) ? copy(to, from, bytes, *stream) : kInvalidHandle; });
}
API Status cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
  return cuMemcpyAsync(to, reinterpret_cast<Address>(from), bytes, stream);
}
API Status cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
  return cuMemcpyAsync(reinterpret_cast<Address>(to), from, bytes, stream);
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
    if (!is_stream(stream)) return kInvalidHandle;
    if (!is_allocated(to, bytes)) return kInvalidValue;
    enqueue(*stream,
            [=] { return std::memset(reinterpret_cast<void*>(to), value, bytes), kSuccess; });
    return kSuccess;
  });
}
