// The table of tokens' bytes, asked for ids inside it and outside.
#include "input.h"
#include "token_table.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ingot;
  constexpr int64_t kAsked[] = {0, 1, 2, 7, int64_t{UINT32_MAX}, INT64_MAX, -1};
  const auto ask = [&](int64_t token) {
    fuzz::may_refuse([&] { fuzz::read_all(token_bytes(fuzz::text(data, size), token, "a.pt2")); });
  };
  for (const int64_t token : kAsked) ask(token);
  return 0;
}
