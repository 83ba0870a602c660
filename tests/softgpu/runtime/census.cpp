#include "runtime/census.hpp"

#include <array>
#include <cstddef>
#include <numeric>

#include "memory.hpp"

namespace softgpu {
namespace {

constexpr std::size_t kinds = static_cast<std::size_t>(live_kind::count);
constexpr char const* names[kinds] = {"pinned block",     "stream",        "event",          "graph",
                                      "executable graph", "cuBLAS handle", "cuSOLVER handle"};
std::array<long, kinds> live{};

}  // namespace

void count_made(live_kind kind) { ++live[static_cast<std::size_t>(kind)]; }
void count_gone(live_kind kind) { --live[static_cast<std::size_t>(kind)]; }
void forget_live_objects() { live = {}; }

long count_of_live_objects() { return std::accumulate(live.begin(), live.end(), long{memory().leaks()}); }

std::string census_of_live_objects() {
  std::string text;
  auto const add = [&](long count, std::string const& name) {
    if (count == 0) return;
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name + (count == 1 ? "" : "s");
  };
  add(memory().leaks(), "device allocation");
  for (std::size_t k = 0; k < kinds; ++k) add(live[k], names[k]);
  return text;
}

}  // namespace softgpu
