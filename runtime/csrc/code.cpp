#include "code.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string_view>

#include "error.h"

namespace ingot {
namespace {
bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// From memory that nothing can change any more. The descriptor is never closed: the loader knows
// libraries by path, and the next one under the same /proc/self/fd number would be answered with
// this one.
void* open_from_memory(std::string_view code) {
  const int file = memfd_create("ingot-package", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) return nullptr;
  void* library = nullptr;
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (write_all(file, code) && fcntl(file, F_ADD_SEALS, kSeals) == 0) {
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (!library) close(file);
  return library;
}

// Where memory may not be executed: a private file, gone as soon as it is open.
void* open_from_file(std::string_view code) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder && *folder ? folder : "/tmp") + "/ingot-XXXXXX";
  const int file = mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) return nullptr;
  void* library = write_all(file, code) ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(path.c_str());
  close(file);
  return library;
}

// Empty if it has none.
std::string soname(void* library) {
  link_map* map = nullptr;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0) return "";
  const char* strings = nullptr;
  size_t offset = 0;
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_STRTAB) strings = reinterpret_cast<const char*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_SONAME) offset = entry->d_un.d_val;
  }
  return strings && offset ? strings + offset : "";
}
}  // namespace

void* open_code(const Code& code, const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, void*> opened;  // by hash
  const std::lock_guard lock(mutex);
  void*& library = opened[code.sha256];
  if (!library) library = open_from_memory(code.bytes);
  if (!library) library = open_from_file(code.bytes);
  if (library) return library;
  const char* reason = dlerror();
  bad_package(std::string(code.what) + " of " + path + " cannot be loaded (" +
              (reason ? reason : "no reason") + "); export it again with this version of Ingot");
}

void open_op_library(const Code& code, const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, std::string> opened;  // soname -> hash
  const std::string name = soname(open_code(code, path));
  if (name.empty()) return;
  const std::lock_guard lock(mutex);
  if (opened.emplace(name, code.sha256).first->second != code.sha256)
    bad_package("the op library " + name + " of " + path + " is not the one of that name that " +
                "another package has brought into this process; open them in two processes, or " +
                "link one with a soname of its own");
}
}  // namespace ingot
