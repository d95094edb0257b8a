// Arrays of any dtypes and shapes against a graph's inputs. The text is lines: "x float32 T 2*T-3
// 8" states an input, "=x 6 3 8" gives it an array of scalar type 6, "@T 1 9" bounds a size.
#include <cstdlib>
#include <sstream>
#include <string>

#include "input.h"
#include "signature.h"

namespace {
using namespace ingot;

void read_line(const std::string& line, Signature& signature, std::vector<Array>& arrays) {
  static char byte;
  std::istringstream words(line.substr(1));
  std::string word;
  const auto number = [&] { return words >> word ? std::strtoll(word.c_str(), nullptr, 10) : 0; };
  if (line[0] == '@') {
    words >> word;
    const std::string symbol = word;
    const int64_t least = number();
    signature.symbols[symbol] = {least, number()};
  } else if (line[0] == '=') {
    words >> word;
    Array array{&byte, static_cast<int32_t>(number()), {}};
    while (words >> word) array.shape.push_back(std::strtoll(word.c_str(), nullptr, 10));
    arrays.push_back(array);
  } else {
    words >> word;
    Input input{word, static_cast<int32_t>(number()), {}};
    while (words >> word) input.shape.push_back(parse_dim(word));
    signature.inputs.push_back(input);
  }
}
}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Signature signature;
  std::vector<Array> arrays;
  std::istringstream lines(std::string(fuzz::text(data, size)));
  try {
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) read_line(line, signature, arrays);
  } catch (const std::runtime_error&) {  // parse_dim's, which parse_manifest makes an Error of
    return 0;
  }
  fuzz::may_refuse([&] { check_inputs(signature, arrays); });
  return 0;
}
