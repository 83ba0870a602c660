/// @file
/// What became of a step.
#pragma once

#include <cstdint>
#include <ostream>

namespace lowrank {

enum class step_status : std::uint8_t {
  stepped,               ///< weight and state moved on
  stepped_old_basis,     ///< so they did, but the due refresh was rejected and the old basis kept
  skipped_bad_gradient,  ///< NaN, Inf or too large to square: weight, basis and moments are untouched
  skipped_no_basis,      ///< the first basis could not be found; the next step tries again, nothing was touched
};

[[nodiscard]] constexpr char const* name(step_status status) noexcept {
  switch (status) {
    case step_status::stepped:
      return "stepped";
    case step_status::stepped_old_basis:
      return "stepped with the old basis";
    case step_status::skipped_bad_gradient:
      return "skipped: bad gradient";
    case step_status::skipped_no_basis:
      return "skipped: no basis yet";
  }
  return "unknown";
}
inline std::ostream& operator<<(std::ostream& out, step_status status) { return out << name(status); }

}  // namespace lowrank
