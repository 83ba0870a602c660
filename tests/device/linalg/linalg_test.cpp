// The linear algebra of a device against that of the host: the same bits where the arithmetic is ours, rounding apart
// where a library's is.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "device/linalg/sides.hpp"

namespace {

using namespace lowrank_test;

/// Bytes that differ, and where the first one is.
struct difference {
  std::size_t count{}, first{};
};
difference compare(std::vector<std::byte> const& a, std::vector<std::byte> const& b) {
  difference out{a.size() == b.size() ? 0U : 1U, a.size()};
  for (std::size_t k = 0; k < std::min(a.size(), b.size()); ++k)
    if (a[k] != b[k] && out.count++ == 0) out.first = k;
  return out;
}
/// Whether both have the same NaN and infinities and are otherwise close.
double deviation(approximate const& expected, std::vector<double> const& found) {
  if (expected.values.size() != found.size()) return INFINITY;
  double most = 0, unit = 0;
  for (std::size_t k = 0; k < found.size(); ++k) {
    double const a = expected.values[k], b = found[k];
    if (std::isnan(a) && std::isnan(b)) continue;
    if (a == b) {
      if (std::isfinite(a)) unit = std::max(unit, std::abs(a));
      continue;
    }
    if (!std::isfinite(a) || !std::isfinite(b)) return INFINITY;
    unit = std::max(unit, std::abs(a));
    most = std::max(most, std::abs(a - b));
  }
  if (expected.unit != 0) unit = expected.unit;
  return most > 0 ? most / unit : 0;
}
void compare(linalg_side const& host, linalg_side const& device) {
  REQUIRE(host.size() == device.size());
  std::set<std::vector<std::byte>> different;
  for (std::size_t i = 0; i < host.size(); ++i) {
    CAPTURE(host[i].name);
    auto const expected = host[i].run(), found = device[i].run();
    REQUIRE(expected.exact.size() == found.exact.size());
    REQUIRE(expected.close.size() == found.close.size());
    for (auto const& [name, bytes] : expected.exact) {
      CAPTURE(name);
      auto const apart = compare(bytes, found.exact.at(name));
      CAPTURE(apart.first);
      CHECK(apart.count == 0);
      different.insert(bytes);
    }
    for (auto const& [name, one] : expected.close) {
      CAPTURE(name);
      CHECK(deviation(one, found.close.at(name).values) <= one.tolerance);
    }
  }
  MESSAGE(host.size(), " cases, ", different.size(), " different arrays");
}

}  // namespace

TEST_SUITE("device linalg") {
  TEST_CASE("primitives") { compare(host_primitives(), device_primitives()); }
  TEST_CASE("factorizations") { compare(host_factorizations(), device_factorizations()); }
  TEST_CASE("algorithms") { compare(host_algorithms(), device_algorithms()); }
  TEST_CASE("a captured graph computes the same on new numbers") {
    auto const replays = device_replays();
    REQUIRE(replays.size() == 2);
    for (auto const& [captured, direct] : replays) CHECK(captured == direct);
    CHECK(replays[0].direct != replays[1].direct);
  }
  TEST_CASE("what does not fit is refused by name") {
    auto const said = device_refusals();
    char const* const expected[]{"copy: needs equal shapes, got 4x4 and 5x4",
                                 "multiply: needs m x k times k x n",
                                 "needs A with neighbouring",
                                 "needs B with neighbouring",
                                 "needs C with neighbouring",
                                 "gram: needs an l x l result",
                                 "factor_cholesky: needs a square",
                                 "invert_lower: needs neighbouring",
                                 "exact_svd: needs u of 5x4",
                                 "householder_qr: needs q of 5x4"};
    REQUIRE(said.size() == std::size(expected));
    for (std::size_t i = 0; i < said.size(); ++i) {
      CAPTURE(said[i]);
      CHECK(said[i].find(expected[i]) != std::string::npos);
    }
  }
}
