// The sizes in which pools hold memory.
#pragma once
#include <bit>
#include <cstddef>

namespace ingot {
// Eight classes to each power of two: at most an eighth is wasted, and prompts of nearby lengths
// reuse each other's memory.
inline constexpr int kSizeSteps = 8;
inline constexpr size_t kSmallestSize = 512;
inline constexpr int kSizeClasses = 64 * kSizeSteps;

struct SizeClass {
  int index;
  size_t bytes;
};

// The smallest class that holds so many bytes.
inline SizeClass size_class(size_t bytes) {
  if (bytes <= kSmallestSize) return {0, kSmallestSize};
  const int power = std::bit_width(bytes - 1) - 1;
  const size_t step = (size_t{1} << power) / kSizeSteps;
  const size_t steps = (bytes - (size_t{1} << power) + step - 1) / step;
  return {power * kSizeSteps + static_cast<int>(steps), (size_t{1} << power) + steps * step};
}
}  // namespace ingot
