#include "pool.h"

#include <utility>

#include "../size_class.h"

namespace ingot::cuda {
Pool::~Pool() { trim(); }

void* Pool::allocate(size_t bytes) noexcept {
  const size_t size = size_class(bytes).bytes;
  std::vector<Address>& list = free_[size];
  Address address = 0;
  if (!list.empty()) {
    address = list.back();
    list.pop_back();
  } else if (driver().allocate(&address, size) == kSuccess) {
    bytes_ += size;
  } else {
    ran_out_ = true;
    return nullptr;
  }
  return reinterpret_cast<void*>(address);
}

void Pool::release(void* memory, size_t bytes) noexcept {
  free_[size_class(bytes).bytes].push_back(reinterpret_cast<Address>(memory));
}

bool Pool::ran_out() noexcept { return std::exchange(ran_out_, false); }

void Pool::trim() noexcept {
  for (auto& [size, list] : free_) {
    for (const Address address : list) driver().release(address);
    bytes_ -= size * list.size();
    list.clear();
  }
}
}  // namespace ingot::cuda
