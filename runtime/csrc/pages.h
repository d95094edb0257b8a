// Pages of memory.
#pragma once
#include <cstddef>
#include <string_view>

namespace ingot {
char* round_up(char* address, size_t multiple);
// The pages of a shared mapping that lie wholly inside: this process keeps them no longer.
void forget_pages(std::string_view mapped);
}  // namespace ingot
