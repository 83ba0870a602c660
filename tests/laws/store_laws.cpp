// What every way of keeping a basis must obey.
#include <doctest/doctest.h>

#include "lowrank/basis/finder.hpp"
#include "lowrank/basis/store.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "support/optimizers.hpp"

namespace store_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("store laws");

/// How far a kept number may be from the given one: a part of itself, and a part of the span of all numbers and zero.
struct error_of {
  double relative{}, of_span{};
};
template <class Format>
constexpr error_of error{};
template <>
constexpr error_of error<format::bf16>{.relative = 0x1p-8};  // half a unit in the last of 8 digits
// Half a step of a block as wide as everything; its scale is rounded up to bf16.
template <>
constexpr error_of error<format::int8>{.of_span = 0.505 / 255};
template <>
constexpr error_of error<format::int4>{.of_span = 0.505 / 15};

matrix<float> columns(index_t m, index_t r, std::uint64_t seed) {
  auto const q = orthonormal_columns(m, r, seed);
  matrix<float> p{m, r};
  for (index_t i = 0; i < m; ++i)
    for (index_t c = 0; c < r; ++c) p(i, c) = static_cast<float>(q(c, i));
  return p;
}
void check_close(matrix_view<float const> kept, matrix_view<float const> given, error_of allowed) {
  REQUIRE(kept.shape() == given.shape());
  double low = 0, high = 0;
  for (index_t i = 0; i < given.rows; ++i)
    for (index_t j = 0; j < given.cols; ++j)
      low = std::min<double>(low, given(i, j)), high = std::max<double>(high, given(i, j));
  for (index_t i = 0; i < kept.rows; ++i)
    for (index_t j = 0; j < kept.cols; ++j)
      REQUIRE(std::abs(static_cast<double>(kept(i, j)) - static_cast<double>(given(i, j))) <=
              allowed.relative * std::abs(static_cast<double>(given(i, j))) + allowed.of_span * (high - low));
}

/// p as finders give it: packed as the weight lies.
struct candidate {
  candidate(side on, matrix<float> const& p) : memory{p.shape()}, shape{p.shape()}, where{on} {
    auto const to = natural<host_space>(where, memory.data(), shape);
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t c = 0; c < shape.cols; ++c) to(i, c) = p(i, c);
  }
  [[nodiscard]] matrix_view<float const> view() const { return natural<host_space>(where, memory.data(), shape); }

  matrix<float> memory;
  extents shape;
  side where;
};

TEST_CASE_TEMPLATE("open(assign(c)) is c to the format's error, on either side and at any rank up to the capacity",
                   Format, format::fp32, format::bf16, format::int8, format::int4) {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 18}};
  using dense = basis_store<dense_map<host_space>, Format>;
  using pair = basis_store<pair_map<host_space>, Format>;
  for (extents const g : {extents{24, 40}, extents{7, 1}, extents{1, 9}, extents{33, 33}})
    for (index_t const capacity : {index_t{1}, std::min(g.rows, g.cols)})
      for (side const where : {side::left, side::right})
        for (index_t r = 1; r <= capacity; r += 5) {
          scratch_scope const scope{exec};
          auto kept = dense::init(g, capacity);
          CHECK(state_bytes(kept) == dense::bytes(g, capacity));
          auto const p = columns(g.rows, r, 3);
          dense::assign(exec, kept, where, {candidate{where, p}.view()});
          auto const before = exec.arena().available();
          check_close(dense::open(exec, kept, where, g, r).p, read(p), error<Format>);
          CHECK(before - exec.arena().available() == dense::open_bytes(g, r));

          auto both = pair::init(g, capacity);
          CHECK(state_bytes(both) == pair::bytes(g, capacity));
          auto const q = columns(g.cols, r, 4);
          pair::assign(exec, both, where, {candidate{side::left, p}.view(), candidate{side::right, q}.view()});
          auto const between = exec.arena().available();
          auto const opened = pair::open(exec, both, where, g, r);
          CHECK(between - exec.arena().available() == pair::open_bytes(g, r));
          check_close(opened.u, read(p), error<Format>);
          check_close(opened.v, read(q), error<Format>);
        }
}

TEST_CASE("a basis lies in memory as the weight does: columns on the left, rows on the right") {
  host_executor exec{{.threads = 1}};
  auto const p = random_matrix({5, 3}, 1);
  for (side const where : {side::left, side::right}) {
    auto kept = basis_store<dense_map<host_space>, format::fp32>::init({5, 9}, 3);
    basis_store<dense_map<host_space>, format::fp32>::assign(exec, kept, where, {read(p)});
    auto const values = values_of<float>(kept, "values");
    for (index_t i = 0; i < 5; ++i)
      for (index_t c = 0; c < 3; ++c)
        CHECK(values[static_cast<std::size_t>(where == side::left ? i * 3 + c : c * 5 + i)] == p(i, c));
  }
}

TEST_CASE("lift after project is a projection, whichever part of the weight is lifted") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 18}};
  extents const g{26, 38};
  for (index_t const r : {1, 9, 26}) {
    auto const u = columns(g.rows, r, 5), v = columns(g.cols, r, 6);
    auto const x = random_matrix(g, 9);
    auto const check = [&](auto const& map, auto const& expected) {
      auto const apply = [&](matrix_view<float const> a) {
        matrix<float> inner{map.inner(g, r)}, out{g};
        map.project(exec, a, 0.0F, inner.view());
        auto const top = block{0, 10, 0, g.cols}, left = block{10, g.rows, 0, 17},
                   right = block{10, g.rows, 17, g.cols};
        for (auto const part : {top, left, right}) map.lift(exec, 1.0F, read(inner), part, 0.0F, out.view().sub(part));
        return out;
      };
      auto const once = apply(read(x)), twice = apply(read(once));
      CHECK(largest_difference(read(once), expected.view()) < 1e-5);
      CHECK(largest_difference(read(once), read(twice)) < 1e-5);
      CHECK((r == 26 || largest_difference(read(once), read(x)) > 0.1));
    };
    auto const left = plain_product(read(u), plain_product(read(u).t(), read(x)).view());
    check(dense_map<host_space>{read(u)}, left);
    check(pair_map<host_space>{read(u), read(v)},
          plain_product(plain_product(left.view(), read(v)).view(), read(v).t()));
  }
}

TEST_CASE("project adds beta R and lift keeps what it is told to") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  extents const g{8, 12};
  auto const u = columns(g.rows, 3, 5), v = columns(g.cols, 3, 6);
  auto const x = random_matrix(g, 9);
  auto const check = [&](auto const& map) {
    matrix<float> once{map.inner(g, 3)}, thrice{map.inner(g, 3)};
    map.project(exec, read(x), 0.0F, once.view());
    map.project(exec, read(x), 0.0F, thrice.view());
    map.project(exec, read(x), 2.0F, thrice.view());
    for (index_t e = 0; e < once.shape().size(); ++e)
      CHECK(thrice.data()[e] == doctest::Approx(3 * once.data()[e]).epsilon(1e-5));
    matrix<float> plain{g}, kept = copy_of(read(x));
    map.lift(exec, 1.0F, read(once), {0, g.rows, 0, g.cols}, 0.0F, plain.view());
    map.lift(exec, -0.5F, read(once), {0, g.rows, 0, g.cols}, 0.25F, kept.view());
    for (index_t e = 0; e < g.size(); ++e)
      CHECK(std::abs(kept.data()[e] - (0.25F * x.data()[e] - 0.5F * plain.data()[e])) < 1e-5F);
  };
  check(dense_map<host_space>{read(u)});
  check(pair_map<host_space>{read(u), read(v)});
}

TEST_SUITE_END();

}  // namespace

}  // namespace store_laws
