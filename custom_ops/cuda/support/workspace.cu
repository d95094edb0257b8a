#include "device.h"

namespace ingot::cuda {

#ifdef INGOT_EMULATE_CUDA
Workspace::Workspace(int64_t bytes, cudaStream_t stream)
    : memory_(aligned_alloc(256, static_cast<size_t>(divide_up(bytes, 256) * 256))),
      stream_(stream) {
  if (memory_ == nullptr) throw std::bad_alloc();
  memset(memory_, 0xff, static_cast<size_t>(bytes));  // nothing may rely on what was there
}
Workspace::~Workspace() {
  const std::shared_ptr<void> last(memory_, free);
  emulation::enqueue(stream_, [last] {});  // as long as the stream, or a graph of it, may use it
}
#else
Workspace::Workspace(int64_t bytes, cudaStream_t stream) : stream_(stream) {
  check(cudaMallocAsync(&memory_, static_cast<size_t>(bytes > 0 ? bytes : 1), stream));
}
Workspace::~Workspace() { cudaFreeAsync(memory_, stream_); }
#endif

}  // namespace ingot::cuda
