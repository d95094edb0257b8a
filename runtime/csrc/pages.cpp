#include "pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace ingot {
namespace {
constexpr size_t kTable = 2 << 20;  // what one table of pages maps

bool is_in_memory(char* page) {
  unsigned char state = 0;
  return mincore(page, 1, &state) == 0 && (state & 1) != 0;
}
}  // namespace

char* round_up(char* address, size_t multiple) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  return address + (multiple - value % multiple) % multiple;
}

void forget_pages(std::string_view mapped) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* begin = round_up(const_cast<char*>(mapped.data()), page);
  const char* end = mapped.data() + mapped.size();
  if (begin < end) madvise(begin, (end - begin) / page * page, MADV_DONTNEED);
}

void map_ahead(std::string_view mapped) {
  char* begin = round_up(const_cast<char*>(mapped.data()), kTable);
  const char* end = mapped.data() + mapped.size();
  const size_t tables = begin < end ? (end - begin) / kTable : 0;
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < tables; i++) {
    char* table = begin + i * kTable;
    if (is_in_memory(table)) madvise(table, kTable, MADV_POPULATE_READ);
  }
}
}  // namespace ingot
