// The clock of all run events: CLOCK_MONOTONIC, which is also std::chrono::steady_clock's.
#pragma once
#include <time.h>

#include <cstdint>

namespace ingot {
inline int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}
}  // namespace ingot
