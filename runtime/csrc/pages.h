// Pages of memory.
#pragma once
#include <cstddef>
#include <string_view>

namespace ingot {
char* round_up(char* address, size_t multiple);
// The pages of a shared mapping that lie wholly inside: this process keeps them no longer.
void forget_pages(std::string_view mapped);
// The pages of a file's mapping that are in memory: this process has them from here on without a
// fault. With the OpenMP team of the caller, each 2 MiB by one thread: they have one table, and its
// lock is what threads wait for that read side by side for the first time. What is not in memory is
// read from disk when it is needed.
void map_ahead(std::string_view mapped);
}  // namespace ingot
