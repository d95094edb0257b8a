// From a call's kv_type and head_dim to a kernel's template arguments.
#pragma once

#include <type_traits>

#include "attention_rows.h"

namespace ingot::cuda {

// Calls body(T()) with the cache's type.
template <typename Body>
void with_kv_type(KvType type, const Body& body) {
  switch (type) {
    case KvType::float32:
      return body(float());
    case KvType::bfloat16:
      return body(Bfloat());
    case KvType::float16:
      return body(Half());
    case KvType::int8:
      return body(int8_t());
  }
}

// Calls body(T(), std::integral_constant<int, dim>()) for what tensor cores are compiled for;
// returns whether there is such.
template <typename Body>
bool with_tensor_cores(KvType type, int64_t dim, const Body& body) {
  bool found = false;
  with_kv_type(type, [&](auto item) {
    if constexpr (!std::is_same_v<decltype(item), float>) {
      const auto take = [&](auto size) {
        found = true;
        body(item, size);
      };
      switch (dim) {
        case 64:
          return take(std::integral_constant<int, 64>());
        case 80:
          return take(std::integral_constant<int, 80>());
        case 96:
          return take(std::integral_constant<int, 96>());
        case 128:
          return take(std::integral_constant<int, 128>());
        case 256:
          return take(std::integral_constant<int, 256>());
      }
    }
  });
  return found;
}

}  // namespace ingot::cuda
