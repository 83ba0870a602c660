// What every way of keeping a basis must obey.
#include <doctest/doctest.h>

#include "lowrank/basis/finder.hpp"
#include "lowrank/basis/store.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "support/optimizers.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("store laws");

template <class Format>
constexpr double unit = 0;
template <>
constexpr double unit<format::fp32> = 0;
template <>
constexpr double unit<format::bf16> = 0x1p-8;  // half a unit in the last of 8 digits, relative

matrix<float> columns(index_t m, index_t r, std::uint64_t seed) {
  auto const q = orthonormal_columns(m, r, seed);
  matrix<float> p{m, r};
  for (index_t i = 0; i < m; ++i)
    for (index_t c = 0; c < r; ++c) p(i, c) = static_cast<float>(q(c, i));
  return p;
}
void check_close(matrix_view<float const> kept, matrix_view<float const> given, double relative) {
  REQUIRE(kept.shape() == given.shape());
  for (index_t i = 0; i < kept.rows; ++i)
    for (index_t j = 0; j < kept.cols; ++j)
      REQUIRE(std::abs(kept(i, j) - given(i, j)) <= static_cast<float>(relative) * std::abs(given(i, j)));
}

TEST_CASE_TEMPLATE("open(assign(c)) is c to the format's error, on either side and at any rank up to the capacity",
                   Format, format::fp32, format::bf16) {
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
          dense::assign(exec, kept, where, {read(p)});
          auto const before = exec.arena().available();
          check_close(dense::open(exec, kept, where, g, r).p, read(p), unit<Format>);
          CHECK(before - exec.arena().available() == dense::open_bytes(g, r));

          auto both = pair::init(g, capacity);
          CHECK(state_bytes(both) == pair::bytes(g, capacity));
          auto const q = columns(g.cols, r, 4);
          pair::assign(exec, both, where, {read(p), read(q)});
          auto const between = exec.arena().available();
          auto const opened = pair::open(exec, both, where, g, r);
          CHECK(between - exec.arena().available() == pair::open_bytes(g, r));
          check_close(opened.u, read(p), unit<Format>);
          check_close(opened.v, read(q), unit<Format>);
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
