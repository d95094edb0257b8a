// Memory that one call of an op writes and reads again.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot {

// On a cache line, by huge pages where it is large. The calling thread keeps it for its next call,
// of whichever op: a step allocates nothing. What was there may be lost. Of no bytes there is none,
// and it is free for others. Throws std::bad_alloc.
class Workspace {
 public:
  explicit Workspace(int64_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  size_t bytes_;
  bool outer_;  // the thread's, not inside another one
  char* data_;
};

}  // namespace ingot
