#include "state.h"

namespace fake_cuda {
Gpu& gpu() {
  static auto* const one = new Gpu;
  return *one;
}
thread_local std::vector<Context*> current;
thread_local Stream* capturing = nullptr;

bool fails(int64_t& countdown) { return countdown < 0 || (countdown > 0 && --countdown == 0); }

bool is_allocated(Address address, size_t bytes) {
  auto found = gpu().allocations.upper_bound(address);
  if (found == gpu().allocations.begin()) return false;
  --found;
  return address + bytes <= found->first + found->second;
}

void protect(int how) { mprotect(gpu().arena, kArena, how); }

bool is_stream(const Stream* stream) {
  return gpu().streams.count(const_cast<Stream*>(stream)) != 0;
}

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

bool spoils_capture() {
  if (!capturing) return false;
  capturing->invalidated = true;
  return true;
}
}  // namespace fake_cuda
