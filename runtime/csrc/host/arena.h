// One stretch of memory that buffers of all sizes share. A step's temporaries are not in use all at
// once: one lies where others of other sizes were, so that what is held is about the most that was
// in use at any time, and stays held. (Knuth, The Art of Computer Programming 1, section 2.5: best
// fit, neighbours that are free become one.)
#pragma once
#include <cstddef>
#include <vector>

namespace ingot::host {
class Arena {
 public:
  // huge_pages: whether the kernel is asked for them.
  explicit Arena(bool huge_pages) : huge_pages_(huge_pages) {}

  // On a page. Throws std::bad_alloc.
  char* allocate(size_t bytes);
  // What `allocate` gave for so many bytes.
  void free(char* data, size_t bytes);
  // Bytes it has from the system, in use or free.
  size_t held() const { return held_; }

 private:
  struct Stretch {
    char* begin;
    char* end;

    size_t bytes() const { return static_cast<size_t>(end - begin); }
  };

  // Of whole pages.
  char* take(size_t bytes);
  char* grow(size_t bytes);
  void reserve(size_t bytes);

  bool huge_pages_;
  size_t held_ = 0;
  std::vector<Stretch> free_;  // by address; no two touch
  // Addresses without memory yet: what is held grows into them.
  Stretch reserved_{nullptr, nullptr};
};
}  // namespace ingot::host
