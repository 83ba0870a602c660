#include "lowrank/spectrum/statistics.hpp"

#include <doctest/doctest.h>

#include <bit>

#include "lowrank/spectrum/cross_moment.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace statistics_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// What two passes in fp64 over all rows say.
struct plain_statistics {
  std::vector<double> mean;
  matrix<double> second_moment, covariance;

  explicit plain_statistics(matrix_view<float const> x)
      : mean(static_cast<std::size_t>(x.cols)), second_moment{x.cols, x.cols}, covariance{x.cols, x.cols} {
    auto const share = 1.0 / static_cast<double>(x.rows);
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t j = 0; j < x.cols; ++j) mean[static_cast<std::size_t>(j)] += share * static_cast<double>(x(t, j));
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t i = 0; i < x.cols; ++i)
        for (index_t j = 0; j < x.cols; ++j) {
          auto const a = static_cast<double>(x(t, i)), b = static_cast<double>(x(t, j));
          second_moment(i, j) += share * a * b;
          covariance(i, j) += share * (a - mean[static_cast<std::size_t>(i)]) * (b - mean[static_cast<std::size_t>(j)]);
        }
  }
};

/// The largest error of an element against the root of its two diagonal ones.
double relative_error(matrix<double> const& found, matrix<double> const& exact) {
  double worst = 0;
  for (index_t i = 0; i < exact.shape().rows; ++i)
    for (index_t j = 0; j < exact.shape().cols; ++j)
      worst = std::max(worst, std::abs(found(i, j) - exact(i, j)) / std::sqrt(exact(i, i) * exact(j, j)));
  return worst;
}

matrix<double> covariance_of(activation_statistics const& s) {
  matrix<double> out{s.features(), s.features()};
  s.covariance(out.view());
  return out;
}
matrix<double> second_moment_of(activation_statistics const& s) {
  matrix<double> out{s.features(), s.features()};
  s.second_moment(out.view());
  return out;
}

template <class E>
activation_statistics gathered(E& exec, matrix_view<float const> x, index_t batch) {
  activation_statistics out{x.cols};
  for (index_t t = 0; t < x.rows; t += batch) out.add(exec, x.row_range(t, std::min(x.rows, t + batch)));
  return out;
}

/// Correlated columns around means up to 40 times their spread, and one channel as large as in real models.
matrix<float> activations(index_t rows, index_t features, std::uint64_t seed) {
  auto x = random_matrix({rows, features}, seed);
  for (index_t t = 0; t < rows; ++t)
    for (index_t j = 0; j < features; ++j)
      x(t, j) = (j == 3 ? 180.0F : 1.0F) * (x(t, j) + 0.5F * x(t, 0)) + static_cast<float>(j % 5) * 10.0F;
  return x;
}

}  // namespace

TEST_SUITE("activation statistics") {
  TEST_CASE_TEMPLATE("any batches of the same rows give the two-pass mean, covariance and second moment", E,
                     LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (index_t const features : {1, 24, 530}) {
      exec.reserve(activation_statistics::workspace_bytes(features));
      index_t const rows = features > 100 ? 300 : 1003;
      auto const x = activations(rows, std::max<index_t>(features, 4), 7);
      auto const part = copy_of(x.view().col_range(0, features));
      plain_statistics const plain{part.view()};
      for (index_t const batch : {index_t{1}, index_t{7}, index_t{256}, index_t{300}, rows}) {
        if (features > 100 && batch < 256) continue;
        CAPTURE(features);
        CAPTURE(batch);
        auto const s = gathered(exec, part.view(), batch);
        CHECK(s.count() == rows);
        for (index_t j = 0; j < features; ++j) {
          CHECK(s.mean()[static_cast<std::size_t>(j)] ==
                doctest::Approx(plain.mean[static_cast<std::size_t>(j)]).epsilon(1e-12));
          CHECK(s.mean_square(j) == doctest::Approx(plain.second_moment(j, j)).epsilon(1e-12));
          double magnitude = 0;
          for (index_t t = 0; t < rows; ++t)
            magnitude += std::abs(static_cast<double>(part(t, j))) / static_cast<double>(rows);
          CHECK(s.mean_magnitude(j) == doctest::Approx(magnitude).epsilon(1e-12));
        }
        CHECK(relative_error(covariance_of(s), plain.covariance) <= 1e-11);
        CHECK(relative_error(second_moment_of(s), plain.second_moment) <= 1e-13);
      }
    }
  }
  TEST_CASE("two batches whose means differ by 5 are as far apart as Chan's formula says") {
    // Equal batches of variance 0.94 whose means differ by 5: 0.94 + 25 / 4; from the new mean it would be 0.94 + 25 / 16.
    host_executor exec{{.threads = 1, .scratch_bytes = activation_statistics::workspace_bytes(1)}};
    matrix<float> a{2, 1}, b{2, 1};
    float const spread = std::sqrt(0.94F);
    a(0, 0) = spread, a(1, 0) = -spread, b(0, 0) = 5 + spread, b(1, 0) = 5 - spread;
    activation_statistics s{1};
    s.add(exec, a.view());
    s.add(exec, b.view());
    CHECK(covariance_of(s)(0, 0) == doctest::Approx(7.19).epsilon(1e-6));
  }
  TEST_CASE("workers of different sizes add up, in any order, with empty ones and with themselves") {
    host_executor exec{{.threads = 2, .scratch_bytes = activation_statistics::workspace_bytes(24)}};
    auto const x = activations(777, 24, 3);
    auto const all = gathered(exec, x.view(), 777);
    auto a = gathered(exec, x.view().row_range(0, 5), 2), b = gathered(exec, x.view().row_range(5, 600), 100),
         c = gathered(exec, x.view().row_range(600, 777), 177);
    activation_statistics sum{24};
    sum.merge(c);
    sum.merge(activation_statistics{24});
    sum.merge(a);
    sum.merge(b);
    CHECK(sum.count() == 777);
    CHECK(relative_error(covariance_of(sum), covariance_of(all)) <= 1e-11);
    CHECK(largest_difference(row_major(sum.mean().data(), {1, 24}), row_major(all.mean().data(), {1, 24})) <= 1e-12);
    CHECK(sum.mean_magnitude(3) == doctest::Approx(all.mean_magnitude(3)).epsilon(1e-12));
    auto const before = covariance_of(sum);
    sum.merge(sum);
    CHECK(sum.count() == 2 * 777);
    CHECK(relative_error(covariance_of(sum), before) <= 1e-14);
    CHECK_THROWS_AS(sum.merge(activation_statistics{23}), shape_error);
  }
  TEST_CASE("numbers near the ends of fp32 are summed as well as others") {
    host_executor exec{{.threads = 1, .scratch_bytes = activation_statistics::workspace_bytes(8)}};
    for (float const scale : {1e37F, 1e-30F}) {
      CAPTURE(scale);
      auto x = random_matrix({300, 8}, 5);
      for (index_t e = 0; e < x.shape().size(); ++e) x.data()[e] *= scale;
      CHECK(relative_error(covariance_of(gathered(exec, x.view(), 300)), plain_statistics{x.view()}.covariance) <=
            1e-12);
    }
  }
  TEST_CASE("fp32 products are off by little, and cost nobody the mean") {
    host_executor exec{{.threads = 1, .scratch_bytes = activation_statistics::workspace_bytes(24)}};
    auto const x = activations(600, 24, 5);
    activation_statistics s{24};
    s.add(exec, x.view(), gram_kind::mixed);
    plain_statistics const plain{x.view()};
    CHECK(relative_error(second_moment_of(s), plain.second_moment) <= 6e-7);
    CHECK(relative_error(second_moment_of(s), plain.second_moment) >= 1e-12);
    CHECK(s.mean()[5] == doctest::Approx(plain.mean[5]).epsilon(1e-12));
  }
  TEST_CASE("no rows and no features are nothing, before the first row there is nothing to tell") {
    host_executor exec{{.threads = 1, .scratch_bytes = activation_statistics::workspace_bytes(4)}};
    activation_statistics s{4};
    s.add(exec, matrix<float>{0, 4}.view());
    CHECK(s.count() == 0);
    matrix<double> out{4, 4};
    CHECK_THROWS_AS(s.covariance(out.view()), state_error);
    CHECK_THROWS_AS(s.add(exec, matrix<float>{3, 5}.view()), shape_error);
    s.add(exec, matrix<float>{1, 4}.view());
    CHECK_THROWS_AS(s.covariance(matrix<double>{4, 3}.view()), shape_error);
    CHECK_THROWS_AS(activation_statistics{-1}, argument_error);
  }
  TEST_CASE("bytes are those of what is held, and visiting names all of it") {
    activation_statistics const s{37};
    CHECK(s.bytes() == activation_statistics::bytes(37));
    CHECK(s.bytes() == 8 * (37 * 38 / 2 + 2 * 37));
    CHECK(state_bytes(s) == s.bytes());
    CHECK(states_equal(s, activation_statistics{37}));
    CHECK(cross_moment{37}.bytes() == 8 * 37 * 37);
  }
  TEST_CASE("cross moments of pairs of rows, in batches and from workers") {
    host_executor exec{{.threads = 2, .scratch_bytes = cross_moment::workspace_bytes(530)}};
    for (index_t const features : {6, 530}) {
      auto const x = random_matrix({301, features}, 3), y = activations(301, features, 4);
      matrix<double> exact{features, features}, found{features, features};
      for (index_t t = 0; t < 301; ++t)
        for (index_t i = 0; i < features; ++i)
          for (index_t j = 0; j < features; ++j)
            exact(i, j) += static_cast<double>(x(t, i)) * static_cast<double>(y(t, j)) / 301;
      cross_moment a{features}, b{features};
      a.add(exec, x.view().row_range(0, 290), y.view().row_range(0, 290));
      b.add(exec, x.view().row_range(290, 301), y.view().row_range(290, 301));
      b.merge(a);
      CHECK(b.count() == 301);
      b.moment(found.view());
      for (index_t j = 0; j < features; ++j) {
        double const length = 1e-7 * (j == 3 ? 400 : 60);
        for (index_t i = 0; i < features; ++i) CHECK(std::abs(found(i, j) - exact(i, j)) <= length);
      }
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE("statistics have the same bits for any number of threads") {
    auto const x = activations(700, 600, 9);
    auto const with = [&](int threads) {
      host_executor exec{{.threads = threads, .scratch_bytes = activation_statistics::workspace_bytes(600)}};
      return gathered(exec, x.view(), 350);
    };
    auto const one = with(1);
    CHECK(states_equal(one, with(2)));
    CHECK(states_equal(one, with(5)));
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("rows with NaN or infinity are refused, and nothing has changed") {
    host_executor exec{{.threads = 2, .scratch_bytes = cross_moment::workspace_bytes(8)}};
    auto x = random_matrix({600, 8}, 1);
    auto const good = gathered(exec, x.view(), 600);
    for (std::uint32_t const bits : {0x7FC00000U, 0x7F800000U, 0xFF800000U}) {
      auto s = gathered(exec, x.view(), 600);
      auto bad = copy_of(x.view());
      bad(599, 7) = std::bit_cast<float>(bits);
      CHECK_THROWS_AS(s.add(exec, bad.view()), argument_error);
      CHECK(states_equal(s, good));
      cross_moment c{8};
      CHECK_THROWS_AS(c.add(exec, x.view(), bad.view()), argument_error);
      CHECK_THROWS_AS(c.add(exec, bad.view(), x.view()), argument_error);
      CHECK(c.count() == 0);
    }
  }
}

}  // namespace statistics_test
