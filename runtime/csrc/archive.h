// The package file as named byte ranges: a zip of stored entries under one top folder
// (docs/format.md).
#pragma once
#include <map>
#include <string>
#include <string_view>

#include "mapped_file.h"

namespace ingot {
class Archive {
 public:
  // Reads the directory only. Throws Error for a file that is not such an archive, or a damaged
  // one.
  explicit Archive(const std::string& path);

  const std::string& path() const { return path_; }
  bool has(const std::string& name) const { return entries_.count(name) != 0; }
  // The bytes of an entry, in place, named without the top folder. Throws Error if it is not there.
  std::string_view entry(const std::string& name) const;
  const std::map<std::string, std::string_view>& entries() const { return entries_; }

 private:
  std::string path_;
  MappedFile file_;
  std::map<std::string, std::string_view> entries_;
};

// The same over bytes in memory, for Archive and for tests. `path` is for the sentences.
std::map<std::string, std::string_view> read_directory(std::string_view bytes,
                                                       const std::string& path);
}  // namespace ingot
