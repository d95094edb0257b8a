// A .npz file: a zip archive of stored .npy arrays, as numpy.savez writes it.
// Formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and PKWARE's
// APPNOTE.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "dltensor.h"

namespace ingot::host {
// Written beside `path` and renamed by finish(): what has the name is whole. Throws ControlError.
class NpzWriter {
 public:
  explicit NpzWriter(std::string path);
  ~NpzWriter();
  NpzWriter(const NpzWriter&) = delete;
  NpzWriter& operator=(const NpzWriter&) = delete;

  // In row-major order; bfloat16, which numpy lacks, as its bits in uint16.
  void add(const std::string& name, const DLTensor& tensor);
  // Any other entry, as it is.
  void add_text(const std::string& name, std::string_view text);
  void finish();

 private:
  struct Entry {
    std::string name;
    uint32_t crc, bytes, offset;
  };
  void add_entry(const std::string& name, std::string_view head, std::string_view body);
  void write(std::string_view bytes);
  [[noreturn]] void fail(const std::string& reason);

  std::string path_, partial_;
  std::FILE* file_;
  uint64_t written_ = 0;
  std::vector<Entry> entries_;
};
}  // namespace ingot::host
