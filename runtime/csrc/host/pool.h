// Memory of temporaries. A step frees what the next one asks for, so after the first steps nothing
// is taken from the system, and what is held is about the most that steps had in use at once.
#pragma once
#include <cstddef>

namespace ingot::host {
// 64-byte aligned, never null: throws std::bad_alloc.
char* pool_allocate(size_t bytes);
// `bytes` as it was asked for.
void pool_free(char* data, size_t bytes);
// Bytes the pool holds, in use or free.
size_t pool_bytes();
}  // namespace ingot::host
