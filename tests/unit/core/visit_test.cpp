#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "lowrank/core/scalar.hpp"
#include "lowrank/core/visit.hpp"

// A device that is made of host memory: enough to count what is on it.
template <>
struct lowrank::memory<lowrank::device_space> : lowrank::memory<lowrank::host_space> {};

namespace visit_test {

namespace {

using namespace lowrank;

enum class mood : std::uint8_t { calm, busy };

struct inner {
  float mean{};
  buffer<bf16> values{3};

  template <class F>
  friend void visit_state(inner& s, F&& f) {
    f("mean", s.mean);
    f("values", s.values);
  }
};
struct outer {
  index_t rows{4};
  mood now{};
  std::array<double, 2> pair{};
  matrix<float> moment{2, 3};
  inner part;

  template <class F>
  friend void visit_state(outer& s, F const& f) {
    f("rows", identity(s.rows));
    f("now", s.now);
    f("pair", s.pair);
    f("moment", s.moment);
    visit_state(s.part, prefixed(f, "part."));
  }
};
struct on_device {
  buffer<float, device_space> values{10};
  template <class F>
  friend void visit_state(on_device& s, F&& f) {
    f("values", s.values);
  }
};
static_assert(visitable<outer> && visitable<inner> && visitable<on_device> && !visitable<int>);
static_assert(state_scalar<bool> && state_scalar<mood> && state_scalar<std::array<int, 3>>);
static_assert(!state_scalar<long double> && !state_scalar<std::string> && !state_scalar<int*>);
static_assert(state_memory<buffer<int, device_space>> && state_memory<matrix<float>> &&
              !state_memory<std::vector<int>>);

TEST_SUITE_BEGIN("visit");

TEST_CASE("every value is shown once, in order, parts with their prefix, and may be changed") {
  outer s;
  std::vector<std::string> names, identities;
  visit_state(s, [&]<class V>(std::string_view name, V&& value) {
    names.emplace_back(name);
    if constexpr (detail::is_identity<std::remove_cvref_t<V>>) identities.emplace_back(name);
    else if constexpr (std::is_same_v<std::remove_cvref_t<V>, float>) value = 3;
  });
  CHECK(names == std::vector<std::string>{"rows", "now", "pair", "moment", "part.mean", "part.values"});
  CHECK(identities == std::vector<std::string>{"rows"});
  CHECK(s.part.mean == 3);
}

TEST_CASE("reading shows constant values, and identities on demand") {
  outer const s;
  std::vector<std::string> identities;
  int shown = 0;
  read_state(s, [&](std::string_view, auto& value) {
    static_assert(std::is_const_v<std::remove_reference_t<decltype(value)>>);
    ++shown;
  });
  read_state(s, [&](std::string_view name, auto const&, auto is_identity) {
    if (is_identity) identities.emplace_back(name);
  });
  CHECK(shown == 6);
  CHECK(identities == std::vector<std::string>{"rows"});
}

TEST_CASE("bytes are those of buffers and matrices, in any space") {
  CHECK(state_bytes(outer{}) == 2 * 3 * 4 + 3 * 2);
  CHECK(state_bytes(on_device{}) == 40);
}

TEST_CASE("states are equal when every bit is") {
  outer a, b;
  CHECK(states_equal(a, b));
  auto const differs_after = [](auto&& change) {
    outer x, y;
    change(y);
    return !states_equal(x, y);
  };
  CHECK(differs_after([](outer& s) { s.rows = 5; }));
  CHECK(differs_after([](outer& s) { s.now = mood::busy; }));
  CHECK(differs_after([](outer& s) { s.pair[1] = -0.0; }));
  CHECK(differs_after([](outer& s) { s.moment(1, 2) = 1e-45F; }));
  CHECK(differs_after([](outer& s) { s.part.values.data()[2].bits = 1; }));
  CHECK(differs_after([](outer& s) { s.part.values = buffer<bf16>{4}; }));
  CHECK(differs_after([](outer& s) { s.part.values = buffer<bf16>{}; }));
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("states with the same NaN are equal, with another are not") {
  outer a, b;
  a.pair[0] = b.pair[0] = std::bit_cast<double>(0x7FF8000000000001ULL);
  CHECK(states_equal(a, b));
  b.pair[0] = std::bit_cast<double>(0x7FF8000000000002ULL);
  CHECK_FALSE(states_equal(a, b));
}

TEST_SUITE_END();

}  // namespace

}  // namespace visit_test
