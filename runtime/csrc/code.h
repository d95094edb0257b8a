// Shared objects, opened from the memory that holds them.
#pragma once
#include <string>

namespace ingot {
struct Code {
  std::string bytes;   // a copy: what was hashed is what runs, whatever happens to the file
  std::string sha256;  // of these bytes, checked
  const char* what;    // as messages name it
};

// The library of dlopen (RTLD_LOCAL). It stays loaded for ever, since generated code cannot be
// unloaded; so the same code is loaded once in a process, however often packages with it are
// opened. Throws Error with `path`, the package's.
void* open_code(const Code& code, const std::string& path);

// A library of ops, which generated code finds by its soname: the first of that name that the
// process has loaded. Throws Error if that is another one.
void open_op_library(const Code& code, const std::string& path);
}  // namespace ingot
