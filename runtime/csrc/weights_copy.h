// The weights in memory of this process's own, where the user asks for that. A mapped file's pages
// are shared by processes and cost nothing to open, but lie where the kernel once read them to: in
// 4 KiB pages, or on another NUMA node. Anonymous memory is in huge pages, and near.
#pragma once
#include <cstddef>
#include <string_view>

namespace ingot {
class WeightsCopy {
 public:
  // `mapped`: of a shared mapping, whose pages this process need not keep. Throws Error if there is
  // no memory for a second copy.
  explicit WeightsCopy(std::string_view mapped);
  ~WeightsCopy();
  WeightsCopy(const WeightsCopy&) = delete;
  WeightsCopy& operator=(const WeightsCopy&) = delete;

  std::string_view view() const { return {begin_, size_}; }

 private:
  char* memory_;
  char* begin_;
  size_t size_, reserved_;
};
}  // namespace ingot
