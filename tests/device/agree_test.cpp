// Host and device compute the same: bit for bit in everything that is our own arithmetic, within rounding where a library
// multiplies matrices.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "device/sides.hpp"

using lowrank_test::numbers;
using lowrank_test::outcome;

namespace {

/// How far apart weights are, in units of the largest magnitude: all of them, and all but `spared` elements.
struct distance {
  double largest{}, all_but_spared{};
};
distance apart(std::vector<float> const& a, std::vector<float> const& b, std::size_t spared) {
  std::vector<double> each;
  double scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    each.push_back(std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    scale = std::max(scale, std::abs(static_cast<double>(a[i])));
  }
  std::sort(each.rbegin(), each.rend());
  if (scale == 0) scale = 1;
  return {each.front() / scale, each[std::min(spared, each.size() - 1)] / scale};
}

/// Data on which nothing can be told apart would prove nothing. A skipped step leaves zeros, and signs alone four bytes.
bool diverse(std::vector<std::byte> const& bytes) {
  bool const zeros = std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; });
  return bytes.size() < 256 || zeros || std::set<std::byte>(bytes.begin(), bytes.end()).size() >= 4;
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
      CHECK(diverse(bytes));
    }
  }
}

TEST_CASE("tile bodies: Philox gives the known answers on both sides") {
  std::vector<std::uint32_t> const known{0x6627E8D5U, 0xE169C58DU, 0xBC57AC4CU, 0x9B00DBD8U, 0x408F276DU, 0x41C83B0EU,
                                         0xA20BC7C6U, 0x6D5451FDU, 0xD16CFE09U, 0x94FDCCEBU, 0x5001E420U, 0x24126EA1U};
  for (auto const& side : {lowrank_test::host_tile_cases(), lowrank_test::device_tile_cases()}) {
    auto const found = std::find_if(side.begin(), side.end(), [](auto const& one) { return one.name == "Philox"; });
    REQUIRE(found != side.end());
    CHECK(numbers<std::uint32_t>(found->run().at("words")) == known);
  }
}

TEST_CASE("optimizers: ten steps apart by rounding only") {
  auto const host = lowrank_test::host_optimizer_cases(), device = lowrank_test::device_optimizer_cases();
  REQUIRE(host.size() == device.size());
  for (std::size_t i = 0; i < host.size(); ++i) {
    CAPTURE(host[i].name);
    outcome const expected = host[i].run(), found = device[i].run();
    CHECK(numbers<std::int32_t>(expected.at("statuses")) == numbers<std::int32_t>(found.at("statuses")));
    auto const ours = numbers<float>(expected.at("weight"));
    // A weight in codes is rounded at random: a last bit decides now and then, and moves an element by a whole code.
    bool const coded = host[i].name.find("weight") != std::string::npos;
    auto const [largest, rest] = apart(ours, numbers<float>(found.at("weight")), coded ? ours.size() / 100 : 0);
    CAPTURE(largest);
    CHECK(rest < (coded ? 1e-6 : 2e-5));
    CHECK(largest < 0.1);
  }
}
