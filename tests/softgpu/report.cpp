#include "report.hpp"

#include <cstdio>

namespace softgpu {

namespace {
struct report_state {
  int count = 0, expected = 0;
  std::string part, last;
};
report_state& state() {
  static auto* const s = new report_state;  // used from atexit
  return *s;
}
}  // namespace

void report(std::string_view kind, std::string const& what) {
  auto& s = state();
  s.last = std::string(kind) + ": " + what;
  if (s.expected > 0 && s.last.find(s.part) != std::string::npos) {
    --s.expected;
    return;
  }
  if (s.count++ < 20) std::fprintf(stderr, "softgpu: %s\n", s.last.c_str());
}

int report_count() noexcept { return state().count; }

void clear_reports() noexcept {
  state().count = 0;
  state().last.clear();
}

std::string const& last_report() noexcept { return state().last; }

void expect_reports(std::string_view part, int count) {
  state().part = part;
  state().expected = count;
}

int missing_reports() noexcept {
  int const missing = state().expected;
  state().expected = 0;
  return missing;
}

}  // namespace softgpu
