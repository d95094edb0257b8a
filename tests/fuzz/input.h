// What the targets share.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace ingot::fuzz {
inline std::string_view text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Reads every byte, for the sanitizers to see that it may be read.
inline void read_all(std::string_view bytes) {
  [[maybe_unused]] static volatile char sink;
  for (const char byte : bytes) sink = byte;
}

// Runs `body`, which may refuse its input, with an ingot::Error alone.
template <class Body>
void may_refuse(Body body) {
  try {
    body();
  } catch (const Error& error) {
    read_all(error.what());
  }
}
}  // namespace ingot::fuzz
