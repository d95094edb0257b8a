#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mapped_file.h"
#include "pages.h"

namespace ingot {
namespace {
constexpr size_t kTable = 2 << 20;

// A file of our own, as long as the test; on disk where the folder is.
class File {
 public:
  explicit File(size_t bytes) : file_(mkstemp(path_.data())) {
    const std::string data(bytes, 'w');
    EXPECT_EQ(write(file_, data.data(), bytes), static_cast<ssize_t>(bytes));
  }
  ~File() {
    close(file_);
    unlink(path_.c_str());
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  void drop_from_memory() const {
    EXPECT_EQ(fsync(file_), 0);
    EXPECT_EQ(posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED), 0);
  }

 private:
  std::string path_ = testing::TempDir() + "ingot-pages-XXXXXX";
  int file_;
};

size_t pages_of(std::string_view memory) { return memory.size() / sysconf(_SC_PAGESIZE); }

// Pages that this process has in its tables (Linux: admin-guide/mm/pagemap.rst, bit 63).
size_t mapped_pages(std::string_view memory) {
  std::vector<uint64_t> entries(pages_of(memory));
  const auto first = reinterpret_cast<uintptr_t>(memory.data()) / sysconf(_SC_PAGESIZE);
  const int file = open("/proc/self/pagemap", O_RDONLY);
  EXPECT_GE(pread(file, entries.data(), 8 * entries.size(), static_cast<off_t>(8 * first)), 0);
  close(file);
  return std::count_if(entries.begin(), entries.end(), [](uint64_t e) { return e >> 63 != 0; });
}

bool any_in_memory(std::string_view memory) {
  std::vector<unsigned char> states(pages_of(memory));
  EXPECT_EQ(mincore(const_cast<char*>(memory.data()), memory.size(), states.data()), 0);
  return std::any_of(states.begin(), states.end(), [](unsigned char s) { return (s & 1) != 0; });
}

// The whole tables that lie inside.
std::string_view tables_of(std::string_view memory) {
  const char* begin = round_up(const_cast<char*>(memory.data()), kTable);
  return {begin, (memory.data() + memory.size() - begin) / kTable * kTable};
}

bool kernel_can_map_ahead() {
  File file(kTable);
  const MappedFile mapped(file.path());
  return madvise(const_cast<char*>(mapped.data()), 1, MADV_POPULATE_READ) == 0;  // Linux 5.14
}

TEST(Pages, ThatAreInMemoryAreMappedAhead) {
  if (!kernel_can_map_ahead()) GTEST_SKIP() << "this kernel has no MADV_POPULATE_READ";
  File file(5 * kTable);
  const MappedFile mapped(file.path());
  const std::string_view all(mapped.data() + 100, mapped.size() - 100);  // begins inside a page
  const std::string_view tables = tables_of(all);
  ASSERT_GE(tables.size(), 3 * kTable);
  EXPECT_EQ(mapped_pages(tables), 0u);
  map_ahead(all);
  EXPECT_EQ(mapped_pages(tables), pages_of(tables));
}

TEST(Pages, ThatAreOnDiskStayThere) {
  File file(5 * kTable);
  file.drop_from_memory();
  const MappedFile mapped(file.path());
  const std::string_view tables = tables_of({mapped.data(), mapped.size()});
  if (any_in_memory(tables)) GTEST_SKIP() << "files are kept in memory here";
  map_ahead(tables);
  EXPECT_EQ(mapped_pages(tables), 0u);
  EXPECT_FALSE(any_in_memory(tables));
}

TEST(Pages, OfLessThanATableAreLeft) {
  File file(kTable);
  const MappedFile mapped(file.path());
  map_ahead({mapped.data() + 1, mapped.size() - 2});
  map_ahead({});
  EXPECT_EQ(mapped_pages({mapped.data(), mapped.size()}), 0u);
}

}  // namespace
}  // namespace ingot
