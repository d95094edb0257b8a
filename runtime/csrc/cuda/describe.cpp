#include "describe.h"

#include <nlohmann/json.hpp>

#include "device.h"

namespace ingot::cuda {
std::string describe_gpus() {
  nlohmann::json found = {{"driver", version_text(driver_version())},
                          {"devices", nlohmann::json::array()}};
  for (const DeviceFacts& device : devices())
    found["devices"].push_back({{"name", device.name},
                                {"architecture", "sm_" + std::to_string(device.capability)},
                                {"multiprocessors", device.multiprocessors},
                                {"memory_bytes", device.memory}});
  return found.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}
}  // namespace ingot::cuda
