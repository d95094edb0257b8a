#include "gpu.h"

#include "../error.h"
#include "../host.h"

namespace ingot::cuda {
namespace {
Gpu& self(void* user) { return *static_cast<Gpu*>(user); }

// What the host calls: nothing may be thrown across it.
void* allocate(void* user, size_t bytes) { return self(user).pool().allocate(bytes); }
void release(void* user, void* memory, size_t bytes) { self(user).pool().release(memory, bytes); }
int32_t copy(void* user, void* to, const void* from, size_t bytes) {
  return driver().copy(reinterpret_cast<Address>(to), reinterpret_cast<Address>(from), bytes,
                       self(user).device().stream());
}
void call_begins(void* user, const char* name) try {
  self(user).calls().begin(self(user).device(), name);
} catch (const Error&) {  // a trace without this call
}
void call_ends(void* user) try {
  self(user).calls().end(self(user).device());
} catch (const Error&) {
}
}  // namespace

Gpu::Gpu(DeviceId id)
    : device_(id),
      hooks_{this, id, device_.stream(), allocate, release, copy, call_begins, call_ends} {
  const Current current(device_);
  calls_ = std::make_unique<TimedCalls>();
}

Gpu::~Gpu() {
  const Current current(device_);
  calls_.reset();
  pool_.trim();
}

InUse::InUse(const Gpu& gpu) : current_(gpu.device()), before_(host().device_in_use()) {
  host().device_use(&gpu.hooks());
}
InUse::~InUse() { host().device_use(before_); }
}  // namespace ingot::cuda
