// The manifest reader over any text.
#include "input.h"
#include "manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ingot;
  fuzz::may_refuse([&] { parse_manifest(fuzz::text(data, size), "a.pt2"); });
  return 0;
}
