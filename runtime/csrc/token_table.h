// What a token id stands for in text: `ingot/token_bytes.bin` (docs/format.md).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace ingot {
// The bytes of one token, in place in `table`; none for a special one. Throws Error, a sentence
// with `path`, for an id that the table has not, or a damaged table.
std::string_view token_bytes(std::string_view table, int64_t token, const std::string& path);
}  // namespace ingot
