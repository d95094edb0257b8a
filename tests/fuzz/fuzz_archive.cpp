// The zip reader over any bytes: every entry lies inside them.
#include "archive.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ingot;
  fuzz::may_refuse([&] {
    for (const auto& [name, bytes] : read_directory(fuzz::text(data, size), "a.pt2"))
      fuzz::read_all(bytes);
  });
  return 0;
}
