/// @file
/// How much memory something is going to take, line by line, before any of it is allocated.
#pragma once

#include <algorithm>
#include <iomanip>
#include <limits>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// What memory is for. The first three stay from step to step, the others come and go within one.
enum class memory_kind : std::uint8_t { weights, basis, state, gradients, activations, workspace };

[[nodiscard]] constexpr bool is_resident(memory_kind k) noexcept { return k <= memory_kind::state; }
[[nodiscard]] constexpr std::string_view name_of(memory_kind k) noexcept {
  switch (k) {
    case memory_kind::weights:
      return "weights";
    case memory_kind::basis:
      return "basis";
    case memory_kind::state:
      return "state";
    case memory_kind::gradients:
      return "gradients";
    case memory_kind::activations:
      return "activations";
    case memory_kind::workspace:
      break;
  }
  return "workspace";
}

/// Sizes that fit 64 bits, or an error that names what did not.  Throws: shape_error.
namespace checked {

[[nodiscard]] inline index_t sum(index_t a, index_t b, std::string_view what) {
  require<shape_error>(a >= 0 && b >= 0, "plan", what, " must not be negative, got ", a, " and ", b);
  require<shape_error>(b <= std::numeric_limits<index_t>::max() - a, "plan", what, " (", a, " + ", b,
                       ") does not fit 64 bits");
  return a + b;
}
[[nodiscard]] inline index_t product(index_t a, index_t b, std::string_view what) {
  require<shape_error>(a >= 0 && b >= 0, "plan", what, " must not be negative, got ", a, " and ", b);
  require<shape_error>(b == 0 || a <= std::numeric_limits<index_t>::max() / b, "plan", what, " (", a, " x ", b,
                       ") does not fit 64 bits");
  return a * b;
}

}  // namespace checked

struct plan_line {
  memory_kind kind{};
  std::string what;
  index_t bytes{};
  std::string overlay;  ///< lines with the same (not empty) name are never alive together: one block serves all of them
};

/// Lines of bytes and their sums. A value: copy it, print it, ask whether it fits.
class memory_plan {
 public:
  /// Adds to the line of that kind, name and overlay, which is made where there is none.
  /// Throws: shape_error where the sum of all lines does not fit 64 bits.
  void add(memory_kind kind, std::string_view what, index_t bytes, std::string_view overlay = {}) {
    all_ = checked::sum(all_, bytes, what);
    line(kind, what, overlay).bytes += bytes;
  }
  /// The same line holds at least that much: for memory that many steps use one after the other.
  void widen(memory_kind kind, std::string_view what, index_t bytes, std::string_view overlay = {}) {
    index_t const held = line(kind, what, overlay).bytes;
    add(kind, what, std::max(bytes, held) - held, overlay);
  }

  /// Weights first, workspace last; within a kind in the order they were added.
  [[nodiscard]] std::span<plan_line const> lines() const noexcept { return lines_; }
  /// Bytes of one line, 0 where there is none.
  [[nodiscard]] index_t bytes(memory_kind kind, std::string_view what) const noexcept {
    index_t found = 0;
    for (auto const& l : lines_) found += l.kind == kind && l.what == what ? l.bytes : 0;
    return found;
  }
  /// Bytes of all lines of a kind, with overlays counted as if they were apart.
  [[nodiscard]] index_t total(memory_kind kind) const noexcept {
    index_t sum = 0;
    for (auto const& l : lines_) sum += l.kind == kind ? l.bytes : 0;
    return sum;
  }
  /// What stays from step to step: weights, bases, states.
  [[nodiscard]] index_t resident() const noexcept {
    return total(memory_kind::weights) + total(memory_kind::basis) + total(memory_kind::state);
  }
  /// The most that is alive at once: every line, but only the largest of each overlay.
  [[nodiscard]] index_t peak() const noexcept {
    index_t sum = 0;
    for (auto const& l : lines_) sum += is_largest(l) ? l.bytes : 0;
    return sum;
  }

 private:
  [[nodiscard]] plan_line& line(memory_kind kind, std::string_view what, std::string_view overlay) {
    for (auto& l : lines_)
      if (l.kind == kind && l.what == what && l.overlay == overlay) return l;
    auto const next = std::find_if(lines_.begin(), lines_.end(), [&](auto const& l) { return l.kind > kind; });
    return *lines_.insert(next, plan_line{kind, std::string{what}, 0, std::string{overlay}});
  }
  /// Of equal ones the first.
  [[nodiscard]] bool is_largest(plan_line const& l) const noexcept {
    return l.overlay.empty() || std::none_of(lines_.begin(), lines_.end(), [&](plan_line const& other) {
             return other.overlay == l.overlay && (other.bytes > l.bytes || (other.bytes == l.bytes && &other < &l));
           });
  }

  std::vector<plan_line> lines_;
  index_t all_{};  ///< sum of all lines, so that no sum of some of them can overflow
};

/// Gibibytes (2^30), as text with three digits after the point.
[[nodiscard]] inline std::string in_gib(index_t bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(3) << static_cast<double>(bytes) / 1073741824.0 << " GiB";
  return out.str();
}

/// A table: kind, what, bytes, GiB; then the sums.
inline std::ostream& operator<<(std::ostream& out, memory_plan const& plan) {
  std::size_t width = 24;
  auto const text_of = [](plan_line const& l) { return l.overlay.empty() ? l.what : l.what + " [" + l.overlay + "]"; };
  for (auto const& l : plan.lines()) width = std::max(width, text_of(l).size());
  std::ostringstream table;
  auto const row = [&](std::string_view kind, std::string_view what, index_t bytes) {
    table << std::left << std::setw(12) << kind << std::setw(static_cast<int>(width)) << what << std::right
          << std::setw(20) << bytes << std::setw(16) << in_gib(bytes) << '\n';
  };
  for (auto const& l : plan.lines()) row(name_of(l.kind), text_of(l), l.bytes);
  row("resident", "", plan.resident());
  row("peak", "", plan.peak());
  return out << table.str();
}

/// Throws: state_error, saying how much is missing, where the peak is more than what is available.
inline void require_fits(memory_plan const& plan, index_t bytes_available, std::string_view caller = "require_fits") {
  index_t const peak = plan.peak(), there = std::max<index_t>(bytes_available, 0);
  require<state_error>(peak <= there, caller, "needs ", in_gib(peak), " (", peak, " bytes), available are ",
                       in_gib(there), " (", there, "): ", in_gib(peak - there), " (", peak - there, ") are missing");
}

}  // namespace lowrank
