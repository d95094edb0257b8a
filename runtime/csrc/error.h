// How the runtime refuses: an exception with a status and one sentence, turned into a code at the C
// border.
#pragma once
#include <stdexcept>
#include <string>

#include "ingot.h"

namespace ingot {
class Error : public std::runtime_error {
 public:
  Error(ingot_status status, const std::string& sentence)
      : std::runtime_error(sentence), status(status) {}
  ingot_status status;
};

[[noreturn]] inline void bad_input(const std::string& sentence) {
  throw Error(INGOT_BAD_INPUT, sentence);
}
[[noreturn]] inline void bad_package(const std::string& sentence) {
  throw Error(INGOT_BAD_PACKAGE, sentence);
}
}  // namespace ingot
