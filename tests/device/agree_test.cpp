// Host and device compute the same: bit for bit in everything that is our own arithmetic, within rounding where a library
// multiplies matrices.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "device/sides.hpp"

using lowrank_test::numbers;
using lowrank_test::outcome;

namespace {

/// Largest difference in units of the largest magnitude.
double deviation(std::vector<float> const& a, std::vector<float> const& b) {
  double most = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
  }
  return scale > 0 ? most / scale : most;
}

}  // namespace

TEST_CASE("tile bodies: equal bits") {
  auto const host = lowrank_test::host_tile_cases(), device = lowrank_test::device_tile_cases();
  REQUIRE(host.size() == device.size());
  for (std::size_t i = 0; i < host.size(); ++i) {
    CAPTURE(host[i].name);
    outcome const expected = host[i].run(), found = device[i].run();
    REQUIRE(expected.size() == found.size());
    for (auto const& [name, bytes] : expected) {
      CAPTURE(name);
      auto const& other = found.at(name);
      REQUIRE(bytes.size() == other.size());
      std::size_t differing = 0, first = bytes.size();
      for (std::size_t k = 0; k < bytes.size(); ++k)
        if (bytes[k] != other[k]) ++differing, first = std::min(first, k);
      CAPTURE(first);
      CHECK(differing == 0);
      // Data on which nothing can be told apart would prove nothing.
      if (bytes.size() >= 256) CHECK(std::set<std::byte>(bytes.begin(), bytes.end()).size() > 8);
    }
  }
}

TEST_CASE("optimizers: ten steps apart by rounding only") {
  auto const host = lowrank_test::host_optimizer_cases(), device = lowrank_test::device_optimizer_cases();
  REQUIRE(host.size() == device.size());
  for (std::size_t i = 0; i < host.size(); ++i) {
    CAPTURE(host[i].name);
    outcome const expected = host[i].run(), found = device[i].run();
    CHECK(numbers<std::int32_t>(expected.at("statuses")) == numbers<std::int32_t>(found.at("statuses")));
    auto const apart = deviation(numbers<float>(expected.at("weight")), numbers<float>(found.at("weight")));
    MESSAGE(host[i].name, ": ", apart);
    CHECK(apart < 1e-4);
  }
}
