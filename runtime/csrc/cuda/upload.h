// A package's weights in the GPU's memory.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

#include "device.h"

namespace ingot::cuda {
// Bytes that are there, of all. On the calling thread.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

// `mapped`: of a shared mapping, whose pages this process need not keep. Read once, through two
// pinned buffers: while one is filled, the GPU fetches the other. `progress` may be empty.
DeviceBuffer upload(const Device& device, std::string_view mapped, const Progress& progress);
}  // namespace ingot::cuda
