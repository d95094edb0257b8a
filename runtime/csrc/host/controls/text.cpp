#include "text.h"

#include <cerrno>
#include <cstring>

#include "aoti_tensor.h"
#include "control.h"

namespace ingot::host {
namespace {
std::string sizes_text(const int64_t* sizes, int64_t dim) {
  std::string text = "[";
  for (int64_t d = 0; d < dim; d++) text += (d ? ", " : "") + std::to_string(sizes[d]);
  return text + "]";
}
}  // namespace

std::string dtype_name(DLDataType dtype) {
  if (dtype.code == kDLBool) return "bool";
  const char* kind = dtype.code == kDLInt     ? "int"
                     : dtype.code == kDLUInt  ? "uint"
                     : dtype.code == kDLFloat ? "float"
                                              : "bfloat";
  return kind + std::to_string(dtype.bits);
}

std::string describe(const DLTensor& tensor) {
  return dtype_name(tensor.dtype) + " " + sizes_text(tensor.shape, tensor.ndim);
}

std::string describe(const Tensor& tensor) {
  std::string name = "unknown";
  for (const auto& type : kScalarTypes)
    if (type.code == tensor.dtype) name = dtype_name(type.dtype);
  return name + " " + sizes_text(tensor.sizes, tensor.dim);
}

std::string milliseconds(int64_t ns) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", ns / 1e6);
  return text;
}

Output::Output(const std::string& control, const std::string& setting)
    : control_(control), path_(setting == "1" || setting == "stderr" ? "" : setting) {
  file_ = path_.empty() ? stderr : std::fopen(path_.c_str(), "w");
  if (!file_)
    throw ControlError(control_ + ": cannot write " + path_ + " (" + std::strerror(errno) +
                       "); choose a file in a folder that exists, or 1 for stderr");
}

Output::~Output() {
  if (file_ && !path_.empty()) std::fclose(file_);
}

void Output::line(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(file_, format, arguments);
  va_end(arguments);
  std::fputc('\n', file_);
}

void Output::close() {
  if (path_.empty()) return;
  const bool failed = std::ferror(file_) != 0;
  const bool whole = std::fclose(file_) == 0 && !failed;
  file_ = nullptr;
  if (whole) return;
  const std::string reason = std::strerror(errno);
  std::remove(path_.c_str());
  throw ControlError(control_ + ": could not write all of " + path_ + " (" + reason +
                     "), which is removed; make room");
}
}  // namespace ingot::host
