#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "error.h"

namespace ingot {
MappedFile::MappedFile(const std::string& path) {
  // O_NONBLOCK: a pipe is refused below, and not waited for.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) bad_input("cannot open " + path + ": " + std::strerror(errno));
  struct stat info;
  const bool regular = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  if (regular && info.st_size > 0) {
    size_ = static_cast<size_t>(info.st_size);
    void* mapping = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    if (mapping != MAP_FAILED) data_ = static_cast<const char*>(mapping);
    // What is not in memory yet is then read in huge pages, where the kernel has them for files.
    if (data_) madvise(mapping, size_, MADV_HUGEPAGE);
  }
  const int error = errno;
  close(file);
  if (!regular) bad_input(path + " is not a file; give the path of a package (.pt2)");
  if (size_ == 0) bad_package(path + " is empty; export the package again");
  if (!data_) bad_input("cannot map " + path + ": " + std::strerror(error));
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<char*>(data_), size_);
}
}  // namespace ingot
