// The controls there are, and which are on.
#pragma once
#include <cstddef>
#include <string>

#include "../host_api.h"

namespace ingot::host {
// The one table; null where there is no such row.
const ingot_host_control* control_row(size_t index);

// Turns one on; a value of "" or "0" turns it off. Throws ControlError, and then all is as before.
void set_control(const std::string& name, const std::string& value);
// Those that environment variables ask for. Throws ControlError.
void set_controls_from_environment();
// All say what they found, and are off. Throws ControlError if one cannot.
void report_controls();
}  // namespace ingot::host
