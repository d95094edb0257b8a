// The zip format is PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central
// directory), 4.3.14 to 4.3.16 (end records) and 4.5.3 (zip64 field). Every offset comes from a
// stranger: each read is checked against the bytes there are.
#include "archive.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "error.h"

namespace ingot {
namespace {
constexpr uint32_t kEndRecord = 0x06054b50, kEndRecord64 = 0x06064b50, kEndLocator64 = 0x07064b50;
constexpr uint32_t kCentralHeader = 0x02014b50, kLocalHeader = 0x04034b50;
constexpr size_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kCentralBytes = 46,
                 kLocalBytes = 30;
constexpr uint64_t kMaxEntries = 1 << 20;

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  template <class T>
  T at(uint64_t offset) const {
    T value;
    std::memcpy(&value, range(offset, sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view range(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || size > bytes_.size() - offset)
      damaged("an entry reaches beyond the end of the file");
    return bytes_.substr(offset, size);
  }
  [[noreturn]] void damaged(const std::string& what) const {
    bad_package(path_ + " is damaged or cut short: " + what + "; copy or export it again");
  }
  [[noreturn]] void foreign() const {
    bad_package(path_ + " is not an Ingot package; make one with 'ingot export CHECKPOINT -o " +
                "model.pt2'");
  }
  uint64_t size() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  const std::string& path_;
};

struct Directory {
  uint64_t offset, count, end;
};

// The end record may be followed by a comment of up to 65535 bytes. Nothing else may lie behind the
// directory: readers differ in what they make of it, and might find another one there.
Directory find_directory(const Reader& reader) {
  if (reader.size() < kEndBytes || reader.at<uint32_t>(0) != kLocalHeader) reader.foreign();
  const uint64_t last = reader.size() - kEndBytes;
  uint64_t end = last;
  while (reader.at<uint32_t>(end) != kEndRecord) {
    if (end == 0 || last - end == 0xffff) reader.damaged("its directory is missing");
    end--;
  }
  if (reader.at<uint16_t>(end + 20) != last - end) reader.damaged("bytes follow its end");
  const Directory found{reader.at<uint32_t>(end + 16), reader.at<uint16_t>(end + 10), end};
  const bool in_zip64[] = {found.offset == 0xffffffff, found.count == 0xffff};
  // Python's zipfile writes a zip64 record from 2 GiB on, where the other still has room.
  if (end < kLocatorBytes || reader.at<uint32_t>(end - kLocatorBytes) != kEndLocator64) {
    if (in_zip64[0] || in_zip64[1]) reader.damaged("its zip64 directory is missing");
    return found;
  }
  const uint64_t end64 = reader.at<uint64_t>(end - kLocatorBytes + 8);
  if (end64 != end - kLocatorBytes - kEnd64Bytes || reader.at<uint32_t>(end64) != kEndRecord64)
    reader.damaged("its zip64 directory is missing");
  const Directory large{reader.at<uint64_t>(end64 + 48), reader.at<uint64_t>(end64 + 32), end64};
  if ((!in_zip64[0] && found.offset != large.offset) ||
      (!in_zip64[1] && found.count != large.count))
    reader.damaged("its end records differ");
  return large;
}

struct Entry {
  uint64_t size, stored, local;
};

// Values of 0xffffffff stand in the zip64 field, in this order, only those that are.
void read_zip64(const Reader& reader, uint64_t field, uint64_t end, Entry& entry) {
  while (field + 4 <= end) {
    const uint16_t id = reader.at<uint16_t>(field), bytes = reader.at<uint16_t>(field + 2);
    uint64_t value = field + 4;
    const uint64_t field_end = value + bytes;
    if (field_end > end) reader.damaged("an extra field is too long");
    if (id == 1)
      for (uint64_t* wanted : {&entry.size, &entry.stored, &entry.local})
        if (*wanted == 0xffffffff) {
          if (value + 8 > field_end) reader.damaged("a zip64 field is too short");
          *wanted = reader.at<uint64_t>(value);
          value += 8;
        }
    field = field_end;
  }
}

// Entries become no files here, but a tool that unpacks the archive makes files of them, and
// sentences name them.
bool is_plain_path(std::string_view name) {
  for (const char c : name)
    if (c < ' ' || c > '~' || c == '\\' || c == ':') return false;
  while (!name.empty()) {
    const std::string_view part = name.substr(0, name.find('/'));
    if (part.empty() || part == "." || part == "..") return false;
    name.remove_prefix(std::min(part.size() + 1, name.size()));
  }
  return true;
}

std::string_view data_of(const Reader& reader, const Entry& entry, std::string_view name) {
  reader.range(entry.local, kLocalBytes);
  const bool is_there =
      reader.at<uint32_t>(entry.local) == kLocalHeader &&
      reader.range(entry.local + kLocalBytes, reader.at<uint16_t>(entry.local + 26)) == name;
  if (!is_there) reader.damaged("the header of " + std::string(name) + " is missing");
  const uint64_t start = entry.local + kLocalBytes + reader.at<uint16_t>(entry.local + 26) +
                         reader.at<uint16_t>(entry.local + 28);
  return reader.range(start, entry.size);
}
}  // namespace

std::map<std::string, std::string_view> read_directory(std::string_view bytes,
                                                       const std::string& path) {
  const Reader reader(bytes, path);
  const Directory directory = find_directory(reader);
  if (directory.count > kMaxEntries) reader.damaged("it claims too many entries");
  std::map<std::string, std::string_view> entries;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.count; i++) {
    reader.range(at, kCentralBytes);
    if (reader.at<uint32_t>(at) != kCentralHeader) reader.damaged("its directory is broken");
    const uint16_t method = reader.at<uint16_t>(at + 10), name_bytes = reader.at<uint16_t>(at + 28);
    const uint16_t extra = reader.at<uint16_t>(at + 30), comment = reader.at<uint16_t>(at + 32);
    Entry entry{reader.at<uint32_t>(at + 24), reader.at<uint32_t>(at + 20),
                reader.at<uint32_t>(at + 42)};
    const std::string_view full = reader.range(at + kCentralBytes, name_bytes);
    if (!is_plain_path(full)) reader.damaged("an entry's name is no plain path");
    const uint64_t extra_start = at + kCentralBytes + name_bytes;
    reader.range(extra_start, extra);
    read_zip64(reader, extra_start, extra_start + extra, entry);
    const size_t slash = full.find('/');
    if (slash == std::string_view::npos) reader.foreign();
    const std::string name(full.substr(slash + 1));
    if (method != 0 || entry.size != entry.stored) reader.damaged(name + " is compressed");
    if (!entries.emplace(name, data_of(reader, entry, full)).second)
      reader.damaged(name + " is there twice");
    at = extra_start + extra + comment;
  }
  if (at != directory.end) reader.damaged("its directory is broken");
  return entries;
}

Archive::Archive(const std::string& path)
    : path_(path), file_(path), entries_(read_directory({file_.data(), file_.size()}, path_)) {
  if (!has("ingot/manifest.json"))
    bad_package(path + " is a zip file but not an Ingot package; make one with 'ingot export'");
}

std::string_view Archive::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) bad_package(path_ + " has no entry " + name + "; export it again");
  return found->second;
}
}  // namespace ingot
