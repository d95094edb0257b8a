// Writes the zip files that the tests read: stored entries, and faults on request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ingot::test {

struct ZipEntry {
  std::string name;  // with the top folder
  std::string data;
  uint16_t method = 0;  // 0: stored
};

inline void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) out += static_cast<char>(i < 8 ? value >> 8 * i : 0);
}

// The sizes and offset that a zip64 entry states in its extra field are 0xffffffff in the fixed
// part.
inline std::string zip_header(const ZipEntry& entry, uint64_t offset, bool central, bool zip64) {
  const uint64_t fixed_size = zip64 ? 0xffffffff : entry.data.size();
  std::string extra;
  if (zip64) {
    put(extra, 1, 2);
    put(extra, central ? 24 : 16, 2);
    put(extra, entry.data.size(), 8);
    put(extra, entry.data.size(), 8);
    if (central) put(extra, offset, 8);
  }
  // Data begins at a multiple of 64 bytes: the local header ends in an extra field of padding.
  if (!central) {
    const uint64_t start = offset + 30 + entry.name.size() + extra.size() + 4;
    const uint64_t padding = (64 - start % 64) % 64;
    put(extra, 0xd935, 2);  // the id that Android's zipalign uses
    put(extra, padding, 2);
    extra.append(padding, '\0');
  }
  std::string out;
  put(out, central ? 0x02014b50 : 0x04034b50, 4);
  if (central) put(out, 45, 2);
  put(out, 45, 2);
  put(out, 0, 2);
  put(out, entry.method, 2);
  put(out, 0, 8);  // time, date, CRC: not read
  put(out, fixed_size, 4);
  put(out, fixed_size, 4);
  put(out, entry.name.size(), 2);
  put(out, extra.size(), 2);
  if (central) {
    put(out, 0, 10);  // comment, disk, attributes
    put(out, zip64 ? 0xffffffff : offset, 4);
  }
  return out + entry.name + extra;
}

// kBoth: the end record states what the zip64 record does, as Python's zipfile has it from 2 GiB
// on.
enum class Zip64 { kNone, kOnly, kBoth };

inline std::string write_zip(const std::vector<ZipEntry>& entries, Zip64 kind = Zip64::kNone) {
  const bool zip64 = kind != Zip64::kNone, marked = kind == Zip64::kOnly;
  std::string out, directory;
  for (const ZipEntry& entry : entries) {
    directory += zip_header(entry, out.size(), true, zip64);
    out += zip_header(entry, out.size(), false, zip64) + entry.data;
  }
  const uint64_t start = out.size();
  out += directory;
  if (zip64) {
    const uint64_t end64 = out.size();
    put(out, 0x06064b50, 4);
    put(out, 44, 8);
    put(out, 45, 2);
    put(out, 45, 2);
    put(out, 0, 8);
    put(out, entries.size(), 8);
    put(out, entries.size(), 8);
    put(out, directory.size(), 8);
    put(out, start, 8);
    put(out, 0x07064b50, 4);
    put(out, 0, 4);
    put(out, end64, 8);
    put(out, 1, 4);
  }
  put(out, 0x06054b50, 4);
  put(out, 0, 4);
  put(out, marked ? 0xffff : entries.size(), 2);
  put(out, marked ? 0xffff : entries.size(), 2);
  put(out, directory.size(), 4);
  put(out, marked ? 0xffffffff : start, 4);
  put(out, 0, 2);
  return out;
}

}  // namespace ingot::test
