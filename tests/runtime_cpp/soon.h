#pragma once
#include <chrono>
#include <thread>

namespace ingot {

// Whether that comes to hold. (A thread that was joined may be listed for a moment yet.)
template <class Condition>
bool soon(Condition holds, std::chrono::seconds within = std::chrono::seconds(30)) {
  const auto end = std::chrono::steady_clock::now() + within;
  while (!holds() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return holds();
}

}  // namespace ingot
