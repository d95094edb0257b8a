// What a graph takes: the inputs as the manifest states them, and whether arrays fit. Generated
// code checks nothing, so nothing reaches it that has not passed here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ingot {
// A size: `offset`, or `multiple` times the size that `symbol` stands for, plus `offset`.
struct Dim {
  std::string symbol;
  int64_t multiple = 0;
  int64_t offset = 0;
};

struct Range {
  int64_t least, most;
};

struct Input {
  std::string name;
  int32_t scalar_type;  // c10::ScalarType
  std::vector<Dim> shape;
};

struct Signature {
  std::vector<Input> inputs;
  std::map<std::string, Range> symbols;
};

// A borrowed array, contiguous in row-major order.
struct Array {
  void* data;
  int32_t scalar_type;
  std::vector<int64_t> shape;
  bool on_gpu = false;  // where `data` is
};
size_t element_bytes(int32_t scalar_type);
size_t byte_count(const Array& array);

// "T", "B+1", "2*T-3" or "7". Throws std::runtime_error.
Dim parse_dim(const std::string& text);

// Throws Error unless `arrays` are what the signature wants; the sentence names the input.
void check_inputs(const Signature& signature, const std::vector<Array>& arrays);

const char* dtype_name(int32_t scalar_type);
}  // namespace ingot
