// Tensors in words, and the files and streams that controls write text to.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <string>

#include "../tensor.h"
#include "dltensor.h"

namespace ingot::host {
std::string dtype_name(DLDataType dtype);      // "float32", as numpy says it
std::string describe(const DLTensor& tensor);  // "float32 [1, 2048]"
std::string describe(const Tensor& tensor);
std::string milliseconds(int64_t ns);  // "0.1234"

// Text to where a setting says: stderr, or a file that is there from the beginning and grows.
class Output {
 public:
  // `setting` is "1" or "stderr", or a path. Throws ControlError if that cannot be written.
  Output(const std::string& control, const std::string& setting);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  [[gnu::format(printf, 2, 3)]] void line(const char* format, ...);
  // Throws ControlError if not all of it could be written.
  void close();

 private:
  std::string control_, path_;
  std::FILE* file_;
};
}  // namespace ingot::host
