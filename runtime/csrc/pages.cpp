#include "pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace ingot {
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
}  // namespace ingot
