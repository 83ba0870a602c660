#include "lowrank/factor/factor_pair.hpp"

#include <doctest/doctest.h>

#include "lowrank/factor/pivoted.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace factor_pair_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

matrix<double> wide(extents shape, std::uint64_t seed) {
  matrix<double> out{shape};
  for (index_t e = 0; e < shape.size(); ++e)
    out.data()[e] = static_cast<double>(gaussian({.seed = seed}, static_cast<std::uint64_t>(e)));
  return out;
}
std::vector<double> wide_bias(index_t m, std::uint64_t seed) {
  auto const row = wide({1, m}, seed);
  return {row.data(), row.data() + m};
}

/// Both forms in fp64 behind one face: left is U or the coefficients, right is V or the pivot rows.
struct pair_layer {
  matrix<double> left, right;
  std::vector<double> bias;

  pair_layer(extents w, index_t r, std::uint64_t seed)
      : left{wide({w.rows, r}, seed)}, right{wide({r, w.cols}, seed + 1)}, bias{wide_bias(w.rows, seed + 2)} {}
  [[nodiscard]] factor_view<double> view() { return {left.view(), right.view(), bias}; }
  void run(host_executor& exec, matrix<double> const& x, matrix<double>& z, matrix<double>& y) {
    forward(exec, view(), x.view(), z.view(), y.view());
  }
  void back(host_executor& exec, matrix<double> const& x, matrix<double> const& z, matrix<double> const& dy,
            matrix<double>& dz, matrix_view<double> dx, layer_gradient<double> const& out) {
    backward(exec, view(), x.view(), z.view(), dy.view(), dz.view(), dx, out);
  }
};
struct pivoted_layer {
  matrix<double> left, right;
  std::vector<double> bias;
  std::vector<std::int32_t> order;

  pivoted_layer(extents w, index_t r, std::uint64_t seed)
      : left{wide({w.rows - r, r}, seed)}, right{wide({r, w.cols}, seed + 1)}, bias{wide_bias(w.rows, seed + 2)} {
    for (std::int32_t i = 0; i < w.rows; ++i) order.push_back(static_cast<std::int32_t>((i * 4 + 1) % w.rows));
  }
  [[nodiscard]] pivoted_view<double> view() { return {right.view(), left.view(), order, bias}; }
  void run(host_executor& exec, matrix<double> const& x, matrix<double>& z, matrix<double>& y) {
    matrix<double> others{x.shape().rows, left.shape().rows};
    forward(exec, view(), x.view(), z.view(), others.view(), y.view());
  }
  void back(host_executor& exec, matrix<double> const& x, matrix<double> const& z, matrix<double> const& dy,
            matrix<double>& dz, matrix_view<double> dx, layer_gradient<double> const& out) {
    matrix<double> others{x.shape().rows, left.shape().rows};
    backward(exec, view(), x.view(), z.view(), dy.view(), dz.view(), others.view(), dx, out);
  }
};

double inner(matrix_view<double const> a, matrix_view<double const> b) {
  double sum = 0;
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) sum += a(i, j) * b(i, j);
  return sum;
}

}  // namespace

TEST_SUITE("factored layers") {
  TEST_CASE_TEMPLATE("gradients are those of finite differences, in fp64", Layer, pair_layer, pivoted_layer) {
    host_executor exec{{.threads = 2}};
    for (auto const& [w, r] : {std::pair{extents{7, 5}, index_t{3}}, std::pair{extents{5, 9}, index_t{5}},
                               std::pair{extents{9, 4}, index_t{1}}}) {
      CAPTURE(w);
      index_t const tokens = 6;
      Layer layer{w, r, 3};
      auto x = wide({tokens, w.cols}, 10);
      auto const dy = wide({tokens, w.rows}, 11);
      matrix<double> z{tokens, r}, y{tokens, w.rows}, dz{tokens, r}, dx{x.shape()};
      matrix<double> d_left{layer.left.shape()}, d_right{layer.right.shape()};
      std::vector<double> d_bias(layer.bias.size());
      layer.run(exec, x, z, y);
      layer.back(exec, x, z, dy, dz, dx.view(), {.left = d_left.view(), .right = d_right.view(), .bias = d_bias});
      // The loss <dY, Y> is linear in each number of the layer, so that central differences have no truncation error.
      auto const slope = [&](double& number) {
        matrix<double> other{y.shape()}, inside{z.shape()};
        double const at = number, step = 0.5;
        number = at + step;
        layer.run(exec, x, inside, other);
        double const above = inner(dy.view(), other.view());
        number = at - step;
        layer.run(exec, x, inside, other);
        number = at;
        return (above - inner(dy.view(), other.view())) / (2 * step);
      };
      auto const compare = [&](matrix<double>& numbers, matrix<double> const& gradient) {
        for (index_t e = 0; e < numbers.shape().size(); ++e)
          CHECK(gradient.data()[e] == doctest::Approx(slope(numbers.data()[e])).epsilon(1e-10));
      };
      compare(layer.left, d_left);
      compare(layer.right, d_right);
      compare(x, dx);
      for (std::size_t i = 0; i < d_bias.size(); ++i)
        CHECK(d_bias[i] == doctest::Approx(slope(layer.bias[i])).epsilon(1e-10));

      // Added to what is there, dZ over Z, and with parts left out.
      matrix<double> twice_left{d_left.shape()}, twice_dx{dx.shape()};
      auto twice_bias = d_bias;
      copy(exec, matrix_view<double const>(d_left.view()), twice_left.view());
      copy(exec, matrix_view<double const>(dx.view()), twice_dx.view());
      layer.back(exec, x, z, dy, dz, twice_dx.view(),
                 {.left = twice_left.view(),
                  .bias = twice_bias,
                  .mode = gradient_mode::add,
                  .input_mode = gradient_mode::add});
      CHECK(largest_difference(twice_dx.view(), dx.view()) > 0);
      for (index_t e = 0; e < dx.shape().size(); ++e) twice_dx.data()[e] /= 2;
      for (index_t e = 0; e < d_left.shape().size(); ++e) twice_left.data()[e] /= 2;
      CHECK(largest_difference(twice_dx.view(), dx.view()) <= 1e-13);
      CHECK(largest_difference(twice_left.view(), d_left.view()) <= 1e-13);
      for (std::size_t i = 0; i < d_bias.size(); ++i) CHECK(twice_bias[i] == doctest::Approx(2 * d_bias[i]));
      matrix<double> again{d_right.shape()};
      layer.back(exec, x, z, dy, z, {}, {.right = again.view()});
      CHECK(same_bits(again, d_right));
    }
  }
  TEST_CASE_TEMPLATE("a layer computes W x + b for its merged W", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    factor_pair pair{{30, 20}, 6};
    pair.u = random_matrix({30, 6}, 1);
    pair.v = random_matrix({6, 20}, 2);
    auto const x = random_matrix({50, 20}, 3), b = random_matrix({1, 30}, 4);
    for (bool const with_bias : {false, true}) {
      if (with_bias) pair.bias.assign(b.data(), b.data() + 30);
      matrix<float> w{30, 20}, z{50, 6}, y{50, 30};
      merge(exec, pair.view(), w.view());
      forward(exec, pair.view(), x.view(), z.view(), y.view());
      auto expected = plain_product(x.view(), w.view().t());
      for (index_t t = 0; t < 50; ++t)
        for (index_t i = 0; i < 30; ++i) expected(t, i) += with_bias ? static_cast<double>(b(0, i)) : 0.0;
      CHECK(largest_difference(y.view(), expected.view()) <= 1e-4);
      CHECK(pair.parameters() == 6 * 50 + (with_bias ? 30 : 0));
    }
  }
  TEST_CASE("parts that do not fit are refused before anything is written") {
    host_executor exec{{.threads = 1}};
    factor_pair pair{{6, 5}, 2};
    auto const x = random_matrix({4, 5}, 1);
    matrix<float> z{4, 2}, y{4, 6}, wrong{4, 3};
    CHECK_THROWS_AS(forward(exec, pair.view(), x.view(), wrong.view(), y.view()), shape_error);
    CHECK_THROWS_AS(forward(exec, pair.view(), x.view(), z.view(), wrong.view()), shape_error);
    CHECK_THROWS_AS(forward(exec, pair.view(), y.view(), z.view(), y.view()), shape_error);
    CHECK_THROWS_AS(backward(exec, pair.view(), x.view(), z.view(), y.view(), z.view(), {}, {.left = wrong.view()}),
                    shape_error);
    CHECK_THROWS_AS(merge(exec, pair.view(), wrong.view()), shape_error);
    pair.bias.resize(5);
    CHECK_THROWS_AS(forward(exec, pair.view(), x.view(), z.view(), y.view()), shape_error);
  }
}

TEST_SUITE("threads") {
  TEST_CASE("the gradient of a bias has the same bits for any number of threads") {
    auto const dy = random_matrix({333, 200}, 2), x = random_matrix({333, 8}, 3);
    std::vector<std::vector<float>> found;
    for (int const threads : {1, 2, 5}) {
      host_executor exec{{.threads = threads}};
      factor_pair pair{{200, 8}, 4};
      matrix<float> z{333, 4};
      backward(exec, pair.view(), x.view(), z.view(), dy.view(), z.view(), {},
               {.bias = found.emplace_back(std::vector<float>(200))});
    }
    CHECK(found[0] == found[1]);
    CHECK(found[0] == found[2]);
  }
}

}  // namespace factor_pair_test
