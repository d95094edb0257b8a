#include "token_table.h"

#include <cstring>

#include "error.h"

namespace ingot {
std::string_view token_bytes(std::string_view table, int64_t token, const std::string& path) {
  const auto word = [&](uint64_t index) {
    uint32_t value = 0;
    if ((index + 1) * 4 > table.size()) bad_package(path + ": token table is cut short");
    std::memcpy(&value, table.data() + index * 4, 4);
    return uint64_t{value};
  };
  const uint64_t count = word(0);
  if (token < 0 || static_cast<uint64_t>(token) >= count)
    bad_input("token id " + std::to_string(token) + " is out of range; the table has " +
              std::to_string(count));
  const uint64_t text = (count + 2) * 4, begin = word(1 + token), end = word(2 + token);
  if (begin > end || text > table.size() || end > table.size() - text)
    bad_package(path + ": the token table is damaged; export it again");
  return table.substr(text + begin, end - begin);
}
}  // namespace ingot
