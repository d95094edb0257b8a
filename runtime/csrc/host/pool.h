// Memory of temporaries. A step frees what the next one asks for, so after the first steps nothing
// is taken from the system. Steps of other sizes leave behind what no step may ask for again: once
// what lies free is several times the most that was ever in use, all of it is given back.
#pragma once
#include <cstddef>

namespace ingot::host {
// 64-byte aligned, never null (the process ends when memory is gone, as in operator new's default).
char* pool_allocate(size_t bytes);
// `bytes` as it was asked for.
void pool_free(char* data, size_t bytes);
// Bytes the pool holds, in use or free.
size_t pool_bytes();
}  // namespace ingot::host
