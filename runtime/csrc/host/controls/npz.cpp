#include "npz.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "control.h"
#include "elements.h"

namespace ingot::host {
namespace {
// The checksum of zip and PNG (ISO 3309), eight bytes at a time would be faster: disks are slower.
uint32_t crc32(uint32_t crc, std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t;
    for (uint32_t i = 0; i < 256; i++) {
      t[i] = i;
      for (int bit = 0; bit < 8; bit++) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0xedb88320u : 0);
    }
    return t;
  }();
  crc = ~crc;
  for (const char byte : bytes) crc = table[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ crc >> 8;
  return ~crc;
}

void put(std::string& to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) to += static_cast<char>(value >> (8 * i));
}

// What a local header and its copy in the directory share.
std::string facts(uint32_t crc, uint32_t bytes, const std::string& name) {
  std::string text;
  put(text, 20, 2);     // version needed
  put(text, 0, 2 + 2);  // no flags, stored
  put(text, 0, 2);      // time: midnight
  put(text, 0x21, 2);   // date: 1980-01-01
  put(text, crc, 4);
  put(text, bytes, 4);
  put(text, bytes, 4);
  put(text, name.size(), 2);
  put(text, 0, 2);  // no extra field
  return text;
}

std::string npy_head(const DLTensor& tensor) {
  const char kind = tensor.dtype.code == kDLBool                                     ? 'b'
                    : tensor.dtype.code == kDLFloat                                  ? 'f'
                    : tensor.dtype.code == kDLUInt || tensor.dtype.code == kDLBfloat ? 'u'
                                                                                     : 'i';
  std::string text = std::string("{'descr': '") + (tensor.dtype.bits == 8 ? '|' : '<') + kind +
                     std::to_string(tensor.dtype.bits / 8) +
                     "', 'fortran_order': False, 'shape': (";
  for (int32_t d = 0; d < tensor.ndim; d++) text += std::to_string(tensor.shape[d]) + ",";
  text += "), }";
  constexpr size_t kBefore = 10, kAlignment = 64;  // magic, version and length come before
  text.append(kAlignment - (kBefore + text.size() + 1) % kAlignment, ' ');
  text += '\n';
  std::string head("\x93NUMPY\x01\x00", 8);
  put(head, text.size(), 2);
  return head + text;
}
}  // namespace

NpzWriter::NpzWriter(std::string path) : path_(std::move(path)), partial_(path_ + ".part") {
  std::remove(partial_.c_str());
  file_ = std::fopen(partial_.c_str(), "wbx");  // x: never through a link
  if (!file_) fail(std::strerror(errno));
}

NpzWriter::~NpzWriter() {
  if (!file_) return;
  std::fclose(file_);
  std::remove(partial_.c_str());
}

void NpzWriter::fail(const std::string& reason) {
  if (file_) {
    std::fclose(file_);
    file_ = nullptr;
    std::remove(partial_.c_str());
  }
  throw ControlError("cannot write " + path_ + " (" + reason +
                     "); name a place that exists and has room");
}

void NpzWriter::write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail(std::strerror(errno));
  written_ += bytes.size();
  if (written_ > UINT32_MAX) fail("it would be larger than 4 GiB");
}

void NpzWriter::add(const std::string& name, const DLTensor& tensor) {
  const Elements elements(tensor);
  add_entry(name + ".npy", npy_head(tensor), {elements.data(), elements.bytes()});
}

void NpzWriter::add_text(const std::string& name, std::string_view text) {
  add_entry(name, "", text);
}

void NpzWriter::add_entry(const std::string& name, std::string_view head, std::string_view body) {
  if (head.size() + body.size() > UINT32_MAX) fail(name + " is larger than 4 GiB");
  const uint32_t crc = crc32(crc32(0, head), body);
  entries_.push_back({name, crc, static_cast<uint32_t>(head.size() + body.size()),
                      static_cast<uint32_t>(written_)});
  write("PK\x03\x04" + facts(crc, entries_.back().bytes, name) + name);
  write(head);
  write(body);
}

void NpzWriter::finish() {
  std::string directory;
  for (const Entry& entry : entries_) {
    directory += "PK\x01\x02";
    put(directory, 20, 2);  // version made by
    directory += facts(entry.crc, entry.bytes, entry.name);
    put(directory, 0, 2 + 2 + 2 + 4);  // no comment, disk 0, no attributes
    put(directory, entry.offset, 4);
    directory += entry.name;
  }
  const uint64_t start = written_, bytes = directory.size();
  directory += "PK\x05\x06";
  put(directory, 0, 4);
  put(directory, entries_.size(), 2);
  put(directory, entries_.size(), 2);
  put(directory, bytes, 4);
  put(directory, start, 4);
  put(directory, 0, 2);
  write(directory);
  const bool closed = std::fclose(file_) == 0;
  file_ = nullptr;
  if (!closed || std::rename(partial_.c_str(), path_.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(partial_.c_str());
    fail(reason);
  }
}
}  // namespace ingot::host
