#include "upload.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "../pages.h"

namespace ingot::cuda {
namespace {
constexpr size_t kPart = 16 << 20;

struct Part {
  PinnedBuffer memory;
  Event fetched;
};
}  // namespace

DeviceBuffer upload(const Device& device, std::string_view mapped, const Progress& progress) {
  const std::string purpose =
      "allocating " + std::to_string(mapped.size() >> 20) + " MB of weights on the GPU";
  DeviceBuffer weights(mapped.size(), purpose.c_str());
  const size_t part = std::min(kPart, mapped.size());
  Part parts[] = {{PinnedBuffer(part), {}}, {PinnedBuffer(part), {}}};
  try {
    for (size_t at = 0, count = 0; at < mapped.size(); at += kPart, count++) {
      const std::string_view piece = mapped.substr(at, kPart);
      Part& used = parts[count % 2];
      if (count >= 2) used.fetched.wait();
      std::memcpy(used.memory.data(), piece.data(), piece.size());
      forget_pages(piece);
      device.copy_to_device(weights.data() + at, used.memory.data(), piece.size());
      used.fetched.record(device);
      if (progress) progress(at + piece.size(), mapped.size());
    }
    device.synchronize();
  } catch (...) {
    driver().stream_synchronize(device.stream());  // nothing may read the buffers that go now
    throw;
  }
  return weights;
}
}  // namespace ingot::cuda
