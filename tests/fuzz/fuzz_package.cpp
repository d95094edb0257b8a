// A whole package: opened as a file, up to where its code would be loaded, and asked for what a
// program asks of it. Inputs are mutated by their structure: an entry's bytes change and the
// archive and the hashes are made anew, so that what lies behind them is reached.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "../runtime_cpp/zip_writer.h"
#include "archive.h"
#include "input.h"
#include "package.h"
#include "sha256.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {
using namespace ingot;
using nlohmann::json;
constexpr const char* kManifest = "ingot/manifest.json";
using Entries = std::map<std::string, std::string>;

// A file in memory, known by a path.
class File {
 public:
  explicit File(std::string_view bytes) : file_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (write(file_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      std::abort();
  }
  ~File() { close(file_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

Entries entries_of(std::string_view zip) {
  Entries entries;
  fuzz::may_refuse([&] {
    for (const auto& [name, bytes] : read_directory(zip, "a.pt2")) entries.emplace(name, bytes);
  });
  return entries;
}

void state_hashes(Entries& entries) {
  json manifest = json::parse(entries[kManifest], nullptr, false);
  if (!manifest.is_object() || !manifest["entries"].is_object()) return;
  for (const auto& [name, bytes] : entries)
    if (name != kManifest && manifest["entries"].contains(name))
      manifest["entries"][name] = {{"bytes", bytes.size()}, {"sha256", sha256(bytes)}};
  entries[kManifest] = manifest.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string zip_of(const Entries& entries) {
  std::vector<test::ZipEntry> all;
  for (const auto& [name, bytes] : entries) all.push_back({"model/" + name, bytes});
  return test::write_zip(all);
}

// A number that libFuzzer's seed decides.
size_t pick(unsigned& seed, size_t count) {
  seed = seed * 1664525 + 1013904223;  // Numerical Recipes' generator
  return (seed >> 8) % count;
}
}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  Entries entries = entries_of(fuzz::text(data, size));
  if (entries.empty() || pick(seed, 4) == 0) return LLVMFuzzerMutate(data, size, max_size);
  auto chosen = std::next(entries.begin(), pick(seed, entries.size()));
  if (entries.count(kManifest) && pick(seed, 2)) chosen = entries.find(kManifest);
  std::string& bytes = chosen->second;
  const size_t length = bytes.size();
  bytes.resize(length + 256);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), length, bytes.size()));
  if (pick(seed, 8)) state_hashes(entries);
  const std::string zip = zip_of(entries);
  if (zip.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, zip.data(), zip.size());
  return zip.size();
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const File file(fuzz::text(data, size));
  fuzz::may_refuse([&] {
    ingot_options options{};
    options.struct_bytes = sizeof options;
    options.threads = 1;
    options.verify_weights = 1;
    Package package(file.path(), options);
    fuzz::read_all(package.manifest_json());
    for (const int64_t token : {0, 1, 7})
      fuzz::may_refuse([&] { fuzz::read_all(package.token_bytes(token)); });
  });
  return 0;
}
