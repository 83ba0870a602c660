#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "lowrank/core/buffer.hpp"

namespace buffer_test {

namespace {

using namespace lowrank;

static_assert(!std::is_copy_constructible_v<buffer<float>> && !std::is_copy_assignable_v<buffer<float>>);
static_assert(std::is_nothrow_move_constructible_v<buffer<float>> && std::is_nothrow_move_assignable_v<buffer<float>>);
static_assert(!std::is_copy_constructible_v<matrix<float>> && std::is_nothrow_move_constructible_v<matrix<float>>);
static_assert(!std::is_convertible_v<index_t, buffer<float>>);

TEST_SUITE_BEGIN("buffer");

TEST_CASE("memory is zero at birth, aligned to a cache line, and counted") {
  for (index_t const size : {1, 3, 64, 1000, 100'000}) {
    // Dirty memory of that size first, which the allocator likes to hand out again.
    {
      buffer<double> dirty{size};
      std::ranges::fill(dirty.span(), 1.0);
    }
    buffer<double> const b{size};
    CHECK(b.size() == size);
    CHECK(b.bytes() == 8 * size);
    CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
    CHECK(std::ranges::all_of(b.span(), [](double x) { return x == 0; }));
  }
}

TEST_CASE("nothing is allocated for nothing") {
  buffer<float> const none, zero{0};
  CHECK(none.data() == nullptr);
  CHECK(zero.data() == nullptr);
  CHECK(zero.span().empty());
  CHECK(zero.bytes() == 0);
}

TEST_CASE("moving takes the memory along and leaves nothing behind") {
  buffer<int> a{4};
  a.data()[2] = 5;
  auto* const place = a.data();
  buffer<int> b{std::move(a)};
  CHECK(b.data() == place);
  CHECK(b.span()[2] == 5);
  CHECK(a.data() == nullptr);  // NOLINT(bugprone-use-after-move): what is left is the point
  CHECK(a.size() == 0);
  buffer<int> c{9};
  c = std::move(b);
  CHECK(c.data() == place);
  CHECK(c.size() == 4);
  auto& same = c;
  c = std::move(same);
  CHECK(c.data() == place);
  CHECK(c.size() == 4);
}

TEST_CASE("sizes that cannot be are refused") {
  auto const refusal = [](index_t asked) {
    index_t volatile const size = asked;  // or the compiler warns of the sizes that are refused
    try {
      buffer<float> const b{size};
    } catch (shape_error const& e) { return std::string{e.what()}; }
    return std::string{};
  };
  CHECK(refusal(-1) == "lowrank::buffer: size must be in [0, 2^63 / 4), got -1");
  CHECK(refusal(std::numeric_limits<index_t>::max()).find("got 9223372036854775807") != std::string::npos);
  CHECK(refusal(std::numeric_limits<index_t>::min()).find("got -9223372036854775808") != std::string::npos);
  index_t volatile negative = -1;
  CHECK_THROWS_AS((matrix<float>{negative, 5}), shape_error);
}

TEST_CASE("a matrix is packed by rows") {
  matrix<float> m{3, 4};
  m(1, 2) = 7;
  CHECK(m.data()[1 * 4 + 2] == 7);
  CHECK(m.view()(1, 2) == 7);
  CHECK(std::as_const(m).view()(1, 2) == 7);
  CHECK(m.view().is_row_major());
  CHECK(m.shape() == extents{3, 4});
  CHECK(m.bytes() == 48);
  static_assert(std::is_same_v<decltype(std::as_const(m).view()), matrix_view<float const>>);
  auto moved = std::move(m);
  CHECK(moved(1, 2) == 7);
  CHECK(moved.shape() == extents{3, 4});
}

TEST_SUITE_END();

}  // namespace

}  // namespace buffer_test
