#include "lowrank/factor/pivoted.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace pivoted_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

struct hard_rows {
  std::string name;
  matrix<double> a;
};

std::vector<hard_rows> hard_matrices() {
  std::vector<hard_rows> all;
  auto const add = [&](std::string name, extents shape, auto const& element) {
    matrix<double> a{shape};
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) a(i, j) = element(i, j);
    all.push_back({std::move(name), std::move(a)});
  };
  auto const random = [](index_t i, index_t j) {
    return static_cast<double>(gaussian({.seed = 9}, static_cast<std::uint64_t>(1000 * i + j)));
  };
  add("random", {80, 30}, random);
  add("random square", {30, 30}, random);
  add("one column", {9, 1}, random);
  add("graded columns", {60, 20},
      [&](index_t i, index_t j) { return random(i, j) * std::pow(10.0, -0.5 * static_cast<double>(j)); });
  add("graded rows", {60, 20},
      [&](index_t i, index_t j) { return random(i, j) * std::pow(10.0, -0.2 * static_cast<double>(i)); });
  add("repeated rows", {90, 20}, [&](index_t i, index_t j) { return random(i % 24, j); });
  add("repeated rows, rank 7", {90, 20}, [&](index_t i, index_t j) { return random(i % 7, j); });
  add("repeated columns", {40, 12}, [&](index_t i, index_t j) { return random(i, j % 5); });
  add("nearly repeated rows", {40, 12},
      [&](index_t i, index_t j) { return random(i % 6, j) + 1e-9 * random(i + 50, j); });
  add("zero", {15, 6}, [](index_t, index_t) { return 0.0; });
  add("one row", {15, 6}, [&](index_t i, index_t j) { return i == 11 ? random(0, j) : 0.0; });
  add("signs", {64, 16},
      [](index_t i, index_t j) { return std::popcount(static_cast<unsigned>(i & j)) % 2 == 0 ? 1.0 : -1.0; });
  add("Vandermonde", {50, 12},
      [](index_t i, index_t j) { return std::pow(static_cast<double>(i) / 50, static_cast<double>(j)); });
  // Kahan: columns of the transposed matrix are all as long as the next pivot, so the greedy choice never exchanges them,
  // and the last row of the inverse grows like (1 + c)^n. The first rows are made a little longer, so that ties fall as planned.
  for (index_t const n : {20, 40}) {
    double const c = 0.6, s = 0.8;
    add("Kahan " + std::to_string(n), {n + 1, n}, [=](index_t i, index_t j) {
      if (i == n) return j == n - 1 ? 0.9 * std::pow(s, static_cast<double>(n - 1)) : 0.0;
      if (j > i) return 0.0;
      return std::pow(s, static_cast<double>(j)) * (i == j ? 1.0 + 1e-9 * static_cast<double>(n - i) : -c);
    });
  }
  return all;
}

/// Largest element of A_rest - C A_P, and of C.
struct quality {
  double residual{}, coefficient{};
};
quality quality_of(matrix<double> const& a, row_pivots const& found) {
  index_t const m = a.shape().rows, r = a.shape().cols;
  quality out;
  for (index_t i = r; i < m; ++i)
    for (index_t j = 0; j < r; ++j) {
      double sum = a(found.order[static_cast<std::size_t>(i)], j);
      for (index_t k = 0; k < r; ++k)
        sum -= found.coefficients(i - r, k) * a(found.order[static_cast<std::size_t>(k)], j);
      out.residual = std::max(out.residual, std::abs(sum));
      out.coefficient = std::max(out.coefficient, std::abs(found.coefficients(i - r, j)));
    }
  return out;
}

/// log |det A_P|, by elimination with the largest pivots.
double log_volume(matrix<double> const& a, row_pivots const& found) {
  index_t const r = a.shape().cols;
  matrix<double> p{r, r};
  for (index_t i = 0; i < r; ++i)
    for (index_t j = 0; j < r; ++j) p(i, j) = a(found.order[static_cast<std::size_t>(i)], j);
  double sum = 0;
  for (index_t k = 0; k < r; ++k) {
    index_t best = k;
    for (index_t i = k; i < r; ++i) best = std::abs(p(i, k)) > std::abs(p(best, k)) ? i : best;
    for (index_t j = 0; j < r; ++j) std::swap(p(k, j), p(best, j));
    sum += std::log(std::abs(p(k, k)));
    for (index_t i = k + 1; i < r; ++i) {
      double const share = p(i, k) / p(k, k);
      for (index_t j = k; j < r; ++j) p(i, j) -= share * p(k, j);
    }
  }
  return sum;
}

double largest_of(matrix<double> const& a) {
  double most = 0;
  for (index_t e = 0; e < a.shape().size(); ++e) most = std::max(most, std::abs(a.data()[e]));
  return most;
}

}  // namespace

TEST_SUITE("pivot rows") {
  TEST_CASE_TEMPLATE("all rows follow from the pivots, and no coefficient exceeds the bound", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const& [name, a] : hard_matrices())
      for (double const bound : {2.0, 1.1, 1000.0}) {
        CAPTURE(name);
        CAPTURE(bound);
        auto const found = choose_row_pivots(exec, a.view(), {.bound = bound});
        auto const [residual, coefficient] = quality_of(a, found);
        CHECK(coefficient <= bound);
        CHECK(residual <= 1e-12 * largest_of(a));
        auto const r = static_cast<std::ptrdiff_t>(a.shape().cols);
        CHECK(std::is_sorted(found.order.begin(), found.order.begin() + r));
        CHECK(std::is_sorted(found.order.begin() + r, found.order.end()));
        auto all = found.order;
        std::sort(all.begin(), all.end());
        for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i] == static_cast<std::int32_t>(i));
      }
  }
  TEST_CASE("where the greedy choice leaves large coefficients, exchanges repair it") {
    host_executor exec{{.threads = 1}};
    bool exchanged = false;
    for (auto const& [name, a] : hard_matrices()) {
      CAPTURE(name);
      auto const greedy = choose_row_pivots(exec, a.view(), {.bound = 1e6});
      auto const bounded = choose_row_pivots(exec, a.view());
      CHECK((bounded.swaps > 0) == (greedy.swaps > 0 || quality_of(a, greedy).coefficient > 2));
      if (name == "Kahan 20") CHECK(quality_of(a, greedy).coefficient > 1000);
      exchanged |= bounded.swaps > 0;
    }
    CHECK(exchanged);
  }
  TEST_CASE("every exchange widens the volume of the pivot rows by more than the bound") {
    host_executor exec{{.threads = 1}};
    index_t exchanges = 0;
    for (auto const& [name, a] : hard_matrices()) {
      bool const full_rank = name.starts_with("random") || name.starts_with("graded") || name == "Kahan 20";
      if (!full_rank && name != "Vandermonde") continue;
      auto const greedy = choose_row_pivots(exec, a.view(), {.bound = 1e6});
      CHECK(greedy.swaps == 0);
      for (double const bound : {1.02, 1.3, 2.0}) {
        auto const found = choose_row_pivots(exec, a.view(), {.bound = bound});
        double const gain = log_volume(a, found) - log_volume(a, greedy);
        CAPTURE(name);
        CAPTURE(bound);
        CHECK(gain >= static_cast<double>(found.swaps) * std::log(bound) - 1e-9);
        exchanges += found.swaps;
      }
    }
    CHECK(exchanges >= 10);
  }
  TEST_CASE("bad input is refused") {
    host_executor exec{{.threads = 1}};
    CHECK_THROWS_AS(std::ignore = choose_row_pivots(exec, matrix<double>{4, 5}.view()), shape_error);
    CHECK_THROWS_AS(std::ignore = choose_row_pivots(exec, matrix<double>{4, 3}.view(), {.bound = 1}), argument_error);
  }
}

TEST_SUITE("pivoted form") {
  TEST_CASE_TEMPLATE("it is the same matrix in fewer numbers", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const& [shape, r] : {std::pair{extents{60, 40}, index_t{15}}, std::pair{extents{40, 60}, index_t{40}},
                                   std::pair{extents{60, 40}, index_t{40}}, std::pair{extents{30, 30}, index_t{1}}}) {
      CAPTURE(shape);
      CAPTURE(r);
      factor_pair pair;
      pair.u = random_matrix({shape.rows, r}, 1);
      pair.v = random_matrix({r, shape.cols}, 2);
      pair.bias.assign(static_cast<std::size_t>(shape.rows), 0.5F);
      auto const form = pivoted(exec, pair.view());
      CHECK(form.shape() == shape);
      CHECK(form.rank() == r);
      CHECK(form.bias == pair.bias);
      CHECK(form.parameters() == r * (shape.rows + shape.cols) - r * r + shape.rows);
      CHECK(form.bytes() == 4 * (form.parameters() + shape.rows));
      CHECK_NOTHROW(form.view().check_order("test"));
      for (index_t e = 0; e < form.coefficients.shape().size(); ++e)
        CHECK(std::abs(form.coefficients.data()[e]) <= 2.0F);
      auto const exact = plain_product(pair.u.view(), pair.v.view());
      matrix<float> w{shape};
      merge(exec, form.view(), w.view());
      CHECK(largest_difference(w.view(), exact.view()) <= 3e-6 * largest_of(exact));
      // The stored rows are rows of W, to the last rounding.
      for (index_t k = 0; k < r; ++k)
        for (index_t j = 0; j < shape.cols; ++j)
          CHECK(form.rows(k, j) == static_cast<float>(exact(form.order[static_cast<std::size_t>(k)], j)));

      auto const x = random_matrix({50, shape.cols}, 3);
      matrix<float> z{50, r}, others{50, shape.rows - r}, y{50, shape.rows};
      forward(exec, form.view(), x.view(), z.view(), others.view(), y.view());
      auto expected = plain_product(x.view(), w.view().t());
      for (index_t e = 0; e < expected.shape().size(); ++e) expected.data()[e] += 0.5;
      CHECK(largest_difference(y.view(), expected.view()) <= 2e-6 * largest_of(expected));
    }
  }
  TEST_CASE("what does not fit is refused before anything is written") {
    host_executor exec{{.threads = 1}};
    factor_pair pair;
    pair.u = random_matrix({6, 5}, 1);
    pair.v = random_matrix({5, 4}, 2);
    CHECK_THROWS_AS(std::ignore = pivoted(exec, pair.view()), shape_error);
    pair.u = random_matrix({6, 3}, 1);
    pair.v = random_matrix({3, 4}, 2);
    auto form = pivoted(exec, pair.view());
    matrix<float> x{2, 4}, z{2, 3}, others{2, 3}, y{2, 6}, wrong{2, 5};
    CHECK_NOTHROW(forward(exec, form.view(), x.view(), z.view(), others.view(), y.view()));
    CHECK_THROWS_AS(forward(exec, form.view(), x.view(), z.view(), others.view(), wrong.view()), shape_error);
    CHECK_THROWS_AS(forward(exec, form.view(), x.view(), z.view(), wrong.view(), y.view()), shape_error);
    CHECK_THROWS_AS(forward(exec, form.view(), wrong.view(), z.view(), others.view(), y.view()), shape_error);
    form.order[2] = form.order[3];
    CHECK_THROWS_AS(form.view().check_order("test"), argument_error);
    form.order[2] = 6;
    CHECK_THROWS_AS(form.view().check_order("test"), argument_error);
    form.order.pop_back();
    CHECK_THROWS_AS(forward(exec, form.view(), x.view(), z.view(), others.view(), y.view()), shape_error);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("NaN and infinity are refused") {
    host_executor exec{{.threads = 1}};
    for (std::uint64_t const bits : {0x7FF8'0000'0000'0000ULL, 0x7FF0'0000'0000'0000ULL, 0xFFF0'0000'0000'0000ULL}) {
      matrix<double> a{8, 3};
      a(5, 1) = std::bit_cast<double>(bits);
      CHECK_THROWS_AS(std::ignore = choose_row_pivots(exec, a.view()), argument_error);
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("pivots and coefficients have the same bits for any number of threads") {
    matrix<double> a{300, 90};
    for (index_t e = 0; e < a.shape().size(); ++e)
      a.data()[e] = static_cast<double>(gaussian({.seed = 4}, static_cast<std::uint64_t>(e)));
    auto const with = [&](int threads) {
      host_executor exec{{.threads = threads}};
      return choose_row_pivots(exec, a.view(), {.bound = 1.05});
    };
    auto const one = with(1), two = with(2), five = with(5);
    CHECK(one.swaps > 0);
    CHECK((one.order == two.order && one.order == five.order));
    CHECK((same_bits(one.coefficients, two.coefficients) && same_bits(one.coefficients, five.coefficients)));
  }
}

}  // namespace pivoted_test
