// The same tile bodies as they are shipped: with contraction, which the host does not do. Scales stay within two units in the
// last place, everything that follows from them within rounding.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>

#include "device/sides.hpp"

using lowrank_test::numbers;

namespace {

/// Distance in units in the last place, of floats of one sign.
std::int64_t units_apart(float a, float b) {
  return std::abs(std::int64_t{std::bit_cast<std::int32_t>(a)} - std::int64_t{std::bit_cast<std::int32_t>(b)});
}
bool ends_with(std::string const& text, std::string const& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

TEST_CASE("moments in codes: scales within two units in the last place, weights within rounding") {
  auto const host = lowrank_test::host_tile_cases(), device = lowrank_test::device_tile_cases();
  REQUIRE(host.size() == device.size());
  std::size_t scales = 0, weights = 0;
  for (std::size_t i = 0; i < host.size(); ++i) {
    if (host[i].name.find("adam") == std::string::npos || host[i].name.find("bf16") != std::string::npos) continue;
    CAPTURE(host[i].name);
    auto const expected = host[i].run(), found = device[i].run();
    for (auto const& [name, bytes] : expected) {
      CAPTURE(name);
      auto const ours = numbers<float>(bytes), theirs = numbers<float>(found.at(name));
      REQUIRE(ours.size() == theirs.size());
      if (name.find("state moment") == 0 && ends_with(name, ".scales")) {
        for (std::size_t k = 0; k < ours.size(); ++k) CHECK(units_apart(ours[k], theirs[k]) <= 2);
        scales += ours.size();
      }
      if (name == "weight") {
        double largest = 0, most = 0;
        for (std::size_t k = 0; k < ours.size(); ++k) {
          largest = std::max(largest, std::abs(static_cast<double>(ours[k])));
          most = std::max(most, std::abs(static_cast<double>(ours[k]) - static_cast<double>(theirs[k])));
        }
        // A code on the edge may go the other way, and takes its moment by one code with it.
        CHECK(most <= 2e-3 * largest);
        weights += ours.size();
      }
    }
  }
  CHECK(scales > 200);
  CHECK(weights > 10000);
}
