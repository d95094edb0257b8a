#include "weights_copy.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "error.h"
#include "pages.h"

namespace ingot {
namespace {
constexpr size_t kHugePage = 2 << 20, kPart = 32 << 20;
constexpr unsigned kMostThreads = 8;  // more do not copy faster

// Part by part, so that the process never has both copies whole.
void copy_by_threads(std::string_view from, char* to) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t at; (at = next.fetch_add(kPart)) < from.size();) {
      const std::string_view part = from.substr(at, kPart);
      std::memcpy(to + at, part.data(), part.size());
      forget_pages(part);
    }
  };
  const size_t parts = (from.size() + kPart - 1) / kPart;
  const size_t helpers =
      std::min<size_t>({parts, kMostThreads, std::max(1u, std::thread::hardware_concurrency())});
  std::vector<std::thread> threads;
  try {
    for (size_t i = 1; i < helpers; i++) threads.emplace_back(work);
  } catch (const std::system_error&) {  // there are no more: those that there are do it
  }
  work();
  for (std::thread& thread : threads) thread.join();
}
}  // namespace

WeightsCopy::WeightsCopy(std::string_view mapped)
    : size_(mapped.size()), reserved_(mapped.size() + kHugePage) {
  void* memory =
      mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    throw Error(INGOT_NO_SPACE, "no memory for a copy of the weights (" +
                                    std::to_string(size_ >> 20) +
                                    " MB); open the package without copy_weights");
  memory_ = static_cast<char*>(memory);
  begin_ = round_up(memory_, kHugePage);
  madvise(memory_, reserved_, MADV_HUGEPAGE);  // where the kernel has none, smaller ones do
  copy_by_threads(mapped, begin_);
  mprotect(memory_, reserved_, PROT_READ);
}

WeightsCopy::~WeightsCopy() { munmap(memory_, reserved_); }
}  // namespace ingot
