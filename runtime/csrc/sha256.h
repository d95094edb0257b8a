#pragma once
#include <string>
#include <string_view>

namespace ingot {
// Whether the CPU has instructions for it: six times as fast.
bool has_sha_instructions();
// SHA-256 (FIPS 180-4) in lower-case hexadecimal.
std::string sha256(std::string_view bytes, bool by_instructions = has_sha_instructions());
}  // namespace ingot
