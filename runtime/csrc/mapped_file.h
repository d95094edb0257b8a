// A file, mapped read-only and shared: many processes have one copy of the weights.
#pragma once
#include <cstddef>
#include <string>

namespace ingot {
class MappedFile {
 public:
  // Throws Error: no such file, a folder, empty.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};
}  // namespace ingot
