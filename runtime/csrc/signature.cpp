#include "signature.h"

#include <cctype>
#include <stdexcept>

#include "error.h"

namespace ingot {
namespace {
constexpr int64_t kLargest = int64_t{1} << 40;

int64_t number(const std::string& text) {
  if (text.empty() || text.size() > 12) throw std::runtime_error("a size is '" + text + "'");
  return std::stoll(text);
}

std::string text_of(const Dim& dim) {
  if (dim.symbol.empty()) return std::to_string(dim.offset);
  std::string text = dim.symbol;
  if (dim.multiple != 1) text = std::to_string(dim.multiple) + "*" + text;
  if (dim.offset > 0) text += "+";
  return dim.offset == 0 ? text : text + std::to_string(dim.offset);
}

std::string shape_text(const Input& input) {
  std::string text;
  for (const Dim& dim : input.shape) text += (text.empty() ? "" : ", ") + text_of(dim);
  return "[" + text + "]";
}

std::string shape_text(const Array& array) {
  std::string text;
  for (int64_t size : array.shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

[[noreturn]] void refuse(const Input& input, const Array& array, const std::string& why) {
  bad_input("input " + input.name + " must be " + dtype_name(input.scalar_type) + " " +
            shape_text(input) + ", but is " + dtype_name(array.scalar_type) + " " +
            shape_text(array) + why);
}

// -1 where it has no 64 bits.
int64_t size_of(const Dim& dim, int64_t value) {
  int64_t size = 0;
  const bool is_large = __builtin_mul_overflow(dim.multiple, value, &size) ||
                        __builtin_add_overflow(size, dim.offset, &size);
  return is_large ? -1 : size;
}

// Sizes that symbols were found to stand for.
class Sizes {
 public:
  explicit Sizes(const std::map<std::string, Range>& ranges) : ranges_(ranges) {}

  bool fits(const Dim& dim, int64_t size) {
    if (size < 0 || size > kLargest) return false;
    if (dim.symbol.empty()) return size == dim.offset;
    const auto known = found_.find(dim.symbol);
    if (known != found_.end()) return size_of(dim, known->second) == size;
    const int64_t rest = size - dim.offset, value = rest / dim.multiple;
    if (value * dim.multiple != rest) return false;
    found_.emplace(dim.symbol, value);
    const auto range = ranges_.find(dim.symbol);
    return range == ranges_.end() ? value >= 1
                                  : value >= range->second.least && value <= range->second.most;
  }
  std::string bounds(const Dim& dim) const {
    const auto range = ranges_.find(dim.symbol);
    const auto known = found_.find(dim.symbol);
    if (range == ranges_.end() || known == found_.end()) return "";
    return "; " + dim.symbol + " is " + std::to_string(known->second) + " here and may be " +
           std::to_string(range->second.least) + " to " + std::to_string(range->second.most);
  }

 private:
  const std::map<std::string, Range>& ranges_;
  std::map<std::string, int64_t> found_;
};
}  // namespace

size_t element_bytes(int32_t scalar_type) {
  constexpr size_t kBytes[] = {1, 1, 2, 4, 8, 2, 4, 8};  // c10::ScalarType 0 to 7
  if (scalar_type < 8) return kBytes[scalar_type];
  return scalar_type == 11 ? 1 : 2;  // bool, bfloat16
}

size_t byte_count(const Array& array) {
  size_t bytes = element_bytes(array.scalar_type);
  for (const int64_t size : array.shape) bytes *= static_cast<size_t>(size);
  return bytes;
}

const char* dtype_name(int32_t scalar_type) {
  constexpr const char* kNames[] = {
      "uint8",   "int8",      "int16",      "int32", "int64", "float16", "float32", "float64",
      "complex", "complex64", "complex128", "bool",  "qint8", "quint8",  "qint32",  "bfloat16"};
  return scalar_type >= 0 && scalar_type < 16 ? kNames[scalar_type] : "an unknown dtype";
}

Dim parse_dim(const std::string& text) {
  if (text.size() > 100) throw std::runtime_error("a size is too long");
  size_t at = 0;
  const auto take = [&](auto belongs) {
    const size_t begin = at;
    while (at < text.size() && belongs(static_cast<unsigned char>(text[at]))) at++;
    return text.substr(begin, at - begin);
  };
  const auto is_digit = [](int c) { return c >= '0' && c <= '9'; };
  const auto is_word = [](int c) { return c == '_' || std::isalnum(c); };
  Dim dim;
  const std::string first = take(is_digit);
  if (!first.empty() && at == text.size()) return {"", 0, number(first)};
  dim.multiple = first.empty() ? 1 : number(first);
  if (!first.empty() && text[at++] != '*') throw std::runtime_error("a size is '" + text + "'");
  dim.symbol = take(is_word);
  if (at < text.size() && (text[at] == '+' || text[at] == '-')) {
    const int64_t sign = text[at++] == '-' ? -1 : 1;
    dim.offset = sign * number(take(is_digit));
  }
  if (dim.symbol.empty() || dim.multiple < 1 || at != text.size())
    throw std::runtime_error("a size is '" + text + "'");
  return dim;
}

void check_inputs(const Signature& signature, const std::vector<Array>& arrays) {
  const std::vector<Input>& inputs = signature.inputs;
  if (arrays.size() != inputs.size()) {
    std::string names;
    for (const Input& input : inputs) names += (names.empty() ? "" : ", ") + input.name;
    bad_input("the package takes " + std::to_string(inputs.size()) + " inputs (" + names +
              "), given are " + std::to_string(arrays.size()));
  }
  Sizes sizes(signature.symbols);
  for (size_t i = 0; i < inputs.size(); i++) {
    const Input& input = inputs[i];
    const Array& array = arrays[i];
    if (array.scalar_type != input.scalar_type || array.shape.size() != input.shape.size())
      refuse(input, array, "");
    bool empty = false;
    for (size_t d = 0; d < array.shape.size(); d++) {
      if (!sizes.fits(input.shape[d], array.shape[d]))
        refuse(input, array, sizes.bounds(input.shape[d]));
      empty |= array.shape[d] == 0;
    }
    if (!array.data && !empty) bad_input("input " + input.name + " has no data");
  }
}
}  // namespace ingot
