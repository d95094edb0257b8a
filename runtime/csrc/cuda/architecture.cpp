#include "architecture.h"

#include <cctype>

namespace ingot::cuda {
Architecture parse_architecture(const std::string& name) {
  const std::string stem = "sm_";
  if (name.compare(0, stem.size(), stem) != 0) return {};
  int capability = 0;
  size_t at = stem.size();
  for (; at < name.size() && at < stem.size() + 3 && std::isdigit(name[at]); at++)
    capability = capability * 10 + (name[at] - '0');
  const bool specific = at + 1 == name.size() && name[at] == 'a';
  if (capability < 10 || (at != name.size() && !specific)) return {};
  return {capability, specific};
}

bool runs_on(const Architecture& architecture, int capability) {
  if (architecture.capability == 0) return false;
  if (architecture.specific) return architecture.capability == capability;
  return architecture.capability / 10 == capability / 10 && architecture.capability <= capability;
}
}  // namespace ingot::cuda
