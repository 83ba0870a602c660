#include <doctest/doctest.h>

#include <array>
#include <concepts>
#include <sstream>
#include <type_traits>

#include "lowrank/core/gradient.hpp"
#include "lowrank/core/view.hpp"

namespace view_test {

namespace {

using namespace lowrank;

// Spaces do not mix, and const is gained, never lost.
static_assert(!std::is_convertible_v<matrix_view<float, host_space>, matrix_view<float, device_space>>);
static_assert(!std::is_convertible_v<matrix_view<float, device_space>, matrix_view<float const, host_space>>);
static_assert(!std::is_constructible_v<matrix_view<float, host_space>, matrix_view<float, device_space>>);
static_assert(std::is_convertible_v<matrix_view<float, device_space>, matrix_view<float const, device_space>>);
static_assert(!std::is_convertible_v<matrix_view<float const>, matrix_view<float>>);
static_assert(!std::is_convertible_v<matrix_view<float>, matrix_view<double>>);
template <class V>
concept has_elements = requires(V v) {
  v(index_t{}, index_t{});
};
static_assert(has_elements<matrix_view<float>> && !has_elements<matrix_view<float, device_space>>);
template <class A, class B>
concept comparable = requires(A a, B b) {
  overlap(a, b);
};
static_assert(comparable<matrix_view<float>, matrix_view<int>>);
static_assert(!comparable<matrix_view<float>, matrix_view<float, device_space>>);
static_assert(memory_space<host_space> && memory_space<device_space> && !memory_space<int>);
static_assert(std::is_trivially_copyable_v<matrix_view<float>> && std::is_aggregate_v<matrix_view<float>>);

struct grid {
  std::array<int, 60> values{};
  grid() {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i);
  }
  matrix_view<int> view() { return row_major(values.data(), {6, 10}); }
};

TEST_SUITE_BEGIN("view");

TEST_CASE("a flipped view has its elements on the other side, and flipping twice changes nothing") {
  grid g;
  auto const v = g.view();
  auto const f = v.t();
  CHECK(f.shape() == extents{10, 6});
  for (index_t i = 0; i < v.rows; ++i)
    for (index_t j = 0; j < v.cols; ++j) {
      REQUIRE(v(i, j) == 10 * i + j);
      REQUIRE(&f(j, i) == &v(i, j));
    }
  auto const twice = f.t();
  CHECK(twice.data == v.data);
  CHECK(twice.row_stride == v.row_stride);
  CHECK(twice.col_stride == v.col_stride);
  CHECK(extents{2, 3}.t() == extents{3, 2});
}

TEST_CASE("blocks of blocks, also of flipped views") {
  grid g;
  auto const v = g.view();
  auto const b = v.sub({1, 5, 2, 9});
  CHECK(b.shape() == extents{4, 7});
  CHECK(&b(0, 0) == &v(1, 2));
  CHECK(&b(3, 6) == &v(4, 8));
  auto const inner = b.t().sub({1, 3, 0, 2});
  CHECK(inner.shape() == extents{2, 2});
  CHECK(&inner(1, 0) == &v(1, 4));
  CHECK(&v.row_range(2, 4)(1, 9) == &v(3, 9));
  CHECK(&v.col_range(3, 5)(5, 1) == &v(5, 4));
  CHECK(v.row_range(2, 2).empty());
  CHECK(v.row_range(2, 2).size() == 0);
  CHECK(block{1, 5, 2, 9}.shape() == extents{4, 7});
}

TEST_CASE("packed or not") {
  grid g;
  auto const v = g.view();
  CHECK(v.is_row_major());
  CHECK_FALSE(v.t().is_row_major());
  CHECK(v.row_range(1, 3).is_row_major());
  CHECK_FALSE(v.col_range(1, 3).is_row_major());
  CHECK(v.sub({2, 3, 4, 8}).is_row_major());    // one row
  CHECK(v.row_range(0, 1).t().is_row_major());  // a column whose elements follow each other
  CHECK(row_major(g.values.data(), {6, 1}).is_row_major());
  CHECK_FALSE(v.col_range(0, 1).is_row_major());  // a column of stride 10
}

TEST_CASE("facing: right is left of the flipped matrix") {
  grid g;
  auto const v = g.view();
  CHECK(facing(side::left, v).shape() == extents{6, 10});
  CHECK(facing(side::right, v).shape() == extents{10, 6});
  CHECK(&facing(side::right, v)(7, 2) == &v(2, 7));
  CHECK(facing(side::right, extents{2, 3}) == extents{3, 2});
  CHECK(facing(side::left, extents{2, 3}) == extents{2, 3});
  CHECK(&facing(side::right, facing(side::right, v))(2, 7) == &v(2, 7));
}

TEST_CASE("natural: facing shape, packed as the weight is") {
  std::array<int, 12> memory{};
  auto const left = natural(side::left, memory.data(), {4, 3});
  auto const right = natural(side::right, memory.data(), {4, 3});
  CHECK(left.shape() == extents{4, 3});
  CHECK(right.shape() == extents{4, 3});
  CHECK(&left(1, 2) == memory.data() + 1 * 3 + 2);
  CHECK(&right(1, 2) == memory.data() + 2 * 4 + 1);
  CHECK(facing(side::right, right).is_row_major());
}

TEST_CASE("overlap") {
  grid g, other;
  auto const v = g.view();
  CHECK(overlap(v, v));
  CHECK(overlap(v, v.t()));
  CHECK_FALSE(overlap(v, other.view()));
  CHECK_FALSE(overlap(v.row_range(0, 3), v.row_range(3, 6)));
  CHECK(overlap(v.row_range(0, 3), v.row_range(2, 6)));
  CHECK(overlap(v.row_range(0, 3).t(), v.row_range(2, 6)));
  CHECK_FALSE(overlap(v.row_range(3, 6), v.row_range(0, 3).t()));
  CHECK(overlap(v.sub({0, 1, 9, 10}), v.sub({0, 1, 9, 10})));
  CHECK_FALSE(overlap(v.sub({0, 1, 9, 10}), v.sub({1, 2, 0, 1})));
  CHECK_FALSE(overlap(v, v.row_range(2, 2)));
  matrix_view<int const> const constant = v;
  CHECK(overlap(constant, v));
}

TEST_CASE("shapes print as people write them") {
  std::ostringstream out;
  out << extents{3, 14};
  CHECK(out.str() == "3x14");
}

TEST_CASE("the gradient of a linear layer has its shape without being formed") {
  std::array<float, 40> memory{};
  outer_product<> const g{row_major<host_space>(static_cast<float const*>(memory.data()), {5, 3}),
                          row_major<host_space>(static_cast<float const*>(memory.data()), {5, 8})};
  CHECK(g.shape() == extents{3, 8});
  CHECK(g.t().shape() == extents{8, 3});
  CHECK(g.tokens() == 5);
  CHECK(tokens_of(g) == 5);
  CHECK(facing(side::right, g).shape() == extents{8, 3});
  CHECK(facing(side::left, g).shape() == extents{3, 8});
  CHECK(tokens_of(matrix_view<float const>{}) == 0);
  static_assert(is_dense_gradient<matrix_view<float const>> && !is_dense_gradient<outer_product<>>);
}

TEST_SUITE_END();

}  // namespace

}  // namespace view_test
