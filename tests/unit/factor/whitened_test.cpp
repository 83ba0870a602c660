#include "lowrank/factor/whitened.hpp"

#include <doctest/doctest.h>

#include "lowrank/factor/truncated_svd.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/statistics.hpp"

namespace whitened_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// A layer and the rows that went through it.
struct problem {
  std::string name;
  matrix<float> w, x;
};

/// Inputs with decaying, correlated channels and a mean; `massive`: one channel of mean square 3e4 beside them.
matrix<float> inputs_of(index_t rows, index_t features, double massive, std::uint64_t seed) {
  auto const mix = random_matrix({features, features}, seed + 1);
  auto raw = random_matrix({rows, features}, seed);
  for (index_t t = 0; t < rows; ++t)
    for (index_t j = 0; j < features; ++j) raw(t, j) *= 1.0F / static_cast<float>(1 + j % 17);
  auto const mixed = plain_product(raw.view(), mix.view());
  matrix<float> x{rows, features};
  for (index_t t = 0; t < rows; ++t)
    for (index_t j = 0; j < features; ++j) {
      double const channel = j == features / 2 && massive > 0 ? massive : 1.0;
      x(t, j) = static_cast<float>((mixed(t, j) + 2 * std::sin(static_cast<double>(j))) * channel);
    }
  return x;
}

std::vector<problem> problems() {
  std::vector<problem> all;
  for (extents const shape : {extents{20, 48}, extents{48, 20}, extents{40, 40}})
    for (index_t const rows : {index_t{8}, index_t{500}})
      for (double const massive : {0.0, 60.0})
        all.push_back({std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + ", " + std::to_string(rows) +
                           " rows" + (massive > 0 ? ", massive" : ""),
                       random_matrix(shape, 21), inputs_of(rows, shape.cols, massive, 31)});
  // Inputs in a subspace, and a matrix of low rank.
  auto flat = inputs_of(300, 30, 0, 5);
  for (index_t t = 0; t < 300; ++t)
    for (index_t j = 12; j < 30; ++j) flat(t, j) = flat(t, j - 12) - 0.5F * flat(t, (j * 7) % 12);
  all.push_back({"18 dependent channels", random_matrix({25, 30}, 2), std::move(flat)});
  all.push_back({"weights of rank 9", with_spectrum({50, 30}, power_law(9, 0.5), 8), inputs_of(200, 30, 0, 6)});
  return all;
}

/// mean ‖W x - U V x - b‖² over the rows themselves, in fp64.
double loss_on_rows(problem const& it, factor_pair const& pair) {
  auto const product = plain_product(pair.u.view(), pair.v.view());
  matrix<double> difference{it.w.shape()};
  for (index_t i = 0; i < it.w.shape().rows; ++i)
    for (index_t j = 0; j < it.w.shape().cols; ++j) difference(i, j) = static_cast<double>(it.w(i, j)) - product(i, j);
  auto const missed = plain_product(it.x.view(), difference.view().t());
  double sum = 0;
  for (index_t t = 0; t < missed.shape().rows; ++t)
    for (index_t i = 0; i < missed.shape().cols; ++i) {
      double const b = pair.bias.empty() ? 0.0 : static_cast<double>(pair.bias[static_cast<std::size_t>(i)]);
      sum += std::pow(missed(t, i) - b, 2) / static_cast<double>(missed.shape().rows);
    }
  return sum;
}

/// The loss of SVD-LLM's route: Cholesky factor S of the second moment, SVD of W S in fp64 by its Gram, V S⁻¹.
double loss_by_cholesky(host_executor& exec, problem const& it, activation_statistics const& s, index_t r) {
  index_t const n = it.w.shape().cols;
  matrix<double> c{n, n};
  s.second_moment(c.view());
  std::int32_t failed = 0;
  factor_cholesky(exec, c.view(), &failed);
  REQUIRE(failed == 0);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = i + 1; j < n; ++j) c(i, j) = 0;
  auto const ws = plain_product(it.w.view(), c.view());
  auto g = plain_product(ws.view().t(), ws.view());
  std::vector<double> values(static_cast<std::size_t>(n));
  exec.reserve(symmetric_eigen_bytes(n));
  symmetric_eigen(exec, g.view(), values.data(), &failed);
  invert_lower(exec, c.view());
  // W' = W S V_r V_rᵀ S⁻¹
  auto const kept = g.view().col_range(0, r);
  auto const left = plain_product(ws.view(), kept);
  auto const right = plain_product(kept.t(), c.view());
  factor_pair pair{it.w.shape(), r};
  convert(exec, left.view(), pair.u.view());
  convert(exec, right.view(), pair.v.view());
  return loss_on_rows(it, pair);
}

}  // namespace

TEST_SUITE("factors that know the inputs") {
  TEST_CASE_TEMPLATE("the loss on the rows is the sum of the trailing eigenvalues", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const& it : problems()) {
      CAPTURE(it.name);
      auto const s = statistics_of(exec, it.x.view());
      auto const w = matrix_view<float const>(it.w.view());
      auto const basis = factor::whitened{}.decompose(exec, w, s);
      CHECK(departure_from_orthonormal(basis.directions.view()) <= 1e-12);
      CHECK(basis.values().tail(3) == doctest::Approx(basis.loss(3)).epsilon(1e-12));
      double const all = basis.loss(0);
      for (index_t const r : {index_t{1}, index_t{3}, index_t{7}, index_t{11}, index_t{15}, basis.most()})
        for (auto const balance : {factor_balance::components, factor_balance::spectral, factor_balance::orthonormal}) {
          CAPTURE(r);
          auto const pair = factors(exec, factor::whitened{.balance = balance}, basis, w, s, r);
          // Factors in fp32 cannot say zero; what they add is of second order, 1e-14 of all energy.
          CHECK(std::abs(loss_on_rows(it, pair) - basis.loss(r)) <= 1e-6 * basis.loss(r) + 1e-13 * all);
        }
    }
  }
  TEST_CASE("where a Cholesky factor exists, its route loses as much") {
    host_executor exec{{.threads = 2}};
    for (auto const& it : problems()) {
      bool const singular = it.x.shape().rows <= it.x.shape().cols || it.name.find("dependent") != std::string::npos;
      if (singular) continue;
      CAPTURE(it.name);
      auto const s = statistics_of(exec, it.x.view());
      auto const w = matrix_view<float const>(it.w.view());
      for (index_t const r : {2, 6}) {
        auto const pair = factorize(exec, factor::whitened{}, w, s, r);
        double const ours = loss_on_rows(it, pair);
        // The reference's own factors, in fp32 and not split evenly, lose a little more to rounding.
        CHECK(loss_by_cholesky(exec, it, s, r) == doctest::Approx(ours).epsilon(2e-5));
        CHECK(ours < loss_on_rows(it, truncated_svd(exec, w, r)));
      }
    }
  }
  TEST_CASE("the best bias: the loss is what the covariance of the outputs leaves") {
    host_executor exec{{.threads = 2}};
    for (auto const& it : problems()) {
      CAPTURE(it.name);
      auto const s = statistics_of(exec, it.x.view());
      auto const w = matrix_view<float const>(it.w.view());
      auto const basis = factor::centred{}.decompose(exec, w, s);
      for (index_t const r : {1, 4, 6}) {
        auto const pair = factors(exec, factor::centred{}, basis, w, s, r);
        double const plain = loss_on_rows(it, factorize(exec, factor::whitened{}, w, s, r));
        double const found = loss_on_rows(it, pair);
        CHECK(std::abs(found - basis.loss(r)) <= 2e-6 * basis.loss(r) + 1e-12 * basis.loss(0));
        CHECK(found <= plain);
        // The other basis with a bias lies between; the centred one without its bias is bad.
        double const between =
            loss_on_rows(it, factorize(exec, factor::whitened{.bias = output_bias::matched}, w, s, r));
        CHECK(between <= plain * (1 + 1e-9));
        CHECK(between >= found * (1 - 1e-6) - 1e-12 * basis.loss(0));
        auto const bare = factorize(exec, factor::centred{.bias = output_bias::kept}, w, s, r);
        CHECK(bare.bias.empty());
        CHECK(loss_on_rows(it, bare) > between);
      }
    }
  }
  TEST_CASE("the bias of the layer is kept, and a matched one comes on top") {
    host_executor exec{{.threads = 1}};
    auto const it = std::move(problems()[1]);
    auto const s = statistics_of(exec, it.x.view());
    auto const w = matrix_view<float const>(it.w.view());
    auto const own = random_matrix({1, w.rows}, 77);
    std::span<float const> const bias{own.data(), static_cast<std::size_t>(w.rows)};
    auto const kept = factorize(exec, factor::whitened{}, w, s, 3, bias);
    CHECK(std::equal(bias.begin(), bias.end(), kept.bias.begin(), kept.bias.end()));
    auto const matched = factor::whitened{.bias = output_bias::matched};
    auto const alone = factorize(exec, matched, w, s, 3), both = factorize(exec, matched, w, s, 3, bias);
    for (std::size_t i = 0; i < bias.size(); ++i)
      CHECK(both.bias[i] == doctest::Approx(static_cast<double>(alone.bias[i]) + static_cast<double>(bias[i])));
  }
  TEST_CASE_TEMPLATE("channel scaling is the SVD of the scaled matrix, unscaled", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (auto const& it : problems()) {
      CAPTURE(it.name);
      auto const s = statistics_of(exec, it.x.view());
      auto const w = matrix_view<float const>(it.w.view());
      factor::channel_scaled const method{};
      auto scaled = copy_of(w);
      std::vector<double> scale;
      for (index_t j = 0; j < w.cols; ++j) {
        scale.push_back(std::sqrt(s.mean_magnitude(j)) + 1e-6);
        for (index_t i = 0; i < w.rows; ++i)
          scaled(i, j) = static_cast<float>(static_cast<double>(w(i, j)) * scale.back());
      }
      auto const basis = method.decompose(exec, w, s);
      index_t const k = std::min(w.rows, w.cols), r = 5;
      matrix<float> u{w.rows, k}, v{w.cols, k};
      std::vector<double> values(static_cast<std::size_t>(k));
      REQUIRE(exact_svd(exec, matrix_view<float const>(scaled.view()),
                        {.u = u.view(), .values = values.data(), .v = v.view()}) == svd_status::converged);
      auto const found = basis.values();
      for (std::size_t i = 0; i < 5; ++i) CHECK(found.values[i] == doctest::Approx(values[i]).epsilon(1e-5));
      matrix<double> expected{w.shape()};
      for (index_t i = 0; i < w.rows; ++i)
        for (index_t j = 0; j < w.cols; ++j)
          for (index_t c = 0; c < r; ++c)
            expected(i, j) += static_cast<double>(u(i, c)) * values[static_cast<std::size_t>(c)] *
                              static_cast<double>(v(j, c)) / scale[static_cast<std::size_t>(j)];
      auto const pair = factors(exec, method, basis, w, s, r);
      CHECK(largest_difference(plain_product(pair.u.view(), pair.v.view()).view(), expected.view()) <= 2e-4);
      auto const unscaled = factorize(exec, factor::channel_scaled{.alpha = 0}, w, s, r);
      auto const plain = truncated_svd(exec, w, r);
      CHECK(largest_difference(plain_product(unscaled.u.view(), unscaled.v.view()).view(),
                               plain_product(plain.u.view(), plain.v.view()).view()) <= 1e-5);
    }
  }
  TEST_CASE("shrinkage goes from the samples to what single channels say") {
    host_executor exec{{.threads = 1}};
    auto const it = std::move(problems()[0]);
    auto const s = statistics_of(exec, it.x.view());
    auto const w = matrix_view<float const>(it.w.view());
    double before = 0;
    for (double const shrinkage : {0.0, 0.1, 0.5, 1.0}) {
      factor::whitened const method{.shrinkage = shrinkage};
      double const loss = loss_on_rows(it, factorize(exec, method, w, s, 4));
      CHECK(loss > before);
      before = loss;
    }
    matrix<double> diagonal{w.cols, w.cols};
    for (index_t j = 0; j < w.cols; ++j) diagonal(j, j) = s.mean_square(j);
    auto const basis = find_output_basis(exec, w, diagonal.view());
    auto const shrunk = factor::whitened{.shrinkage = 1}.decompose(exec, w, s);
    for (std::size_t i = 0; i < basis.energies.size(); ++i)
      CHECK(shrunk.energies[i] == doctest::Approx(basis.energies[i]).epsilon(1e-9));
  }
  TEST_CASE("what cannot be meant is refused") {
    host_executor exec{{.threads = 1}};
    auto const it = std::move(problems()[0]);
    auto const s = statistics_of(exec, it.x.view());
    auto const w = matrix_view<float const>(it.w.view());
    CHECK_THROWS_AS(std::ignore = factor::whitened{}.decompose(exec, w, activation_statistics{48}), state_error);
    CHECK_THROWS_AS(std::ignore = factor::centred{}.decompose(exec, w, activation_statistics{47}), shape_error);
    CHECK_THROWS_AS(std::ignore = factor::channel_scaled{}.decompose(exec, w, activation_statistics{48}), state_error);
    CHECK_THROWS_AS(std::ignore = factor::whitened{.shrinkage = 1.5}.decompose(exec, w, s), argument_error);
    CHECK_THROWS_AS(std::ignore = factor::channel_scaled{.alpha = -1}.decompose(exec, w, s), argument_error);
    auto const basis = factor::whitened{}.decompose(exec, w, s);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::whitened{}, basis, w, s, 0), shape_error);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::whitened{}, basis, w, s, 21), shape_error);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::whitened{}, basis, w.t(), s, 3), shape_error);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::centred{}, basis, w, {}, 3), shape_error);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::centred{}, basis, w, activation_statistics{48}, 3),
                    state_error);
    std::vector<float> const bias(19);
    CHECK_THROWS_AS(std::ignore = factors(exec, factor::whitened{}, basis, w, s, 3, bias), shape_error);
    CHECK_THROWS_AS(std::ignore = find_output_basis(exec, w, matrix<double>{20, 20}.view()), shape_error);
  }
}

}  // namespace whitened_test
