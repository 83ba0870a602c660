// WeLore's factors on a device: the spectrum and the product of the host's, and the same matrices refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "lowrank/lowrank.hpp"

#include "device/factor_cases.hpp"
#include "support/matrices.hpp"

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// U V row by row.
[[nodiscard]] std::vector<double> product_of(split_matrix const& s, extents shape, index_t r) {
  std::vector<double> out(static_cast<std::size_t>(shape.size()));
  for (index_t i = 0; i < shape.rows; ++i)
    for (index_t k = 0; k < r; ++k)
      for (index_t j = 0; j < shape.cols; ++j)
        out[static_cast<std::size_t>(i * shape.cols + j)] += double{s.u[static_cast<std::size_t>(i * r + k)]} *
                                                             double{s.v[static_cast<std::size_t>(k * shape.cols + j)]};
  return out;
}
template <class T>
[[nodiscard]] double apart(std::vector<T> const& a, std::vector<T> const& b) {
  REQUIRE(a.size() == b.size());
  double most = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    scale = std::max(scale, std::abs(double{a[i]}));
  }
  return most / scale;
}
/// The product of a column of U and a row of V says nothing of their signs; their lengths do.
[[nodiscard]] std::vector<float> magnitudes(std::vector<float> values) {
  for (float& x : values) x = std::abs(x);
  return values;
}

}  // namespace

TEST_CASE("a truncated SVD on a device is the host's") {
  machine<host_executor> host;
  for (extents const shape : {extents{40, 24}, extents{24, 40}, extents{65, 33}, extents{30, 30}, extents{7, 1}}) {
    index_t const most = std::min(shape.rows, shape.cols), r = std::max<index_t>(1, most / 3);
    auto const w = with_spectrum(shape, power_law(most, 0.7), 3);
    std::vector<float> const values(w.data(), w.data() + shape.size());
    for (auto const balance : {factor_balance::components, factor_balance::spectral, factor_balance::orthonormal}) {
      CAPTURE(shape);
      CAPTURE(int(balance));
      auto const expected = factors_on(host, values, shape, r, balance);
      auto const found = device_factors(values, shape, r, balance);
      REQUIRE(expected.refusal == "");
      REQUIRE(found.refusal == "");
      CHECK(apart(expected.split.energies, found.split.energies) < 1e-12);
      CHECK(apart(product_of(expected.split, shape, r), product_of(found.split, shape, r)) < 1e-6);
      CHECK(apart(magnitudes(expected.split.u), magnitudes(found.split.u)) < 1e-6);
      CHECK(apart(magnitudes(expected.split.v), magnitudes(found.split.v)) < 1e-6);
    }
  }
}

TEST_CASE("all of the rank gives the matrix back, and a matrix of low rank is found") {
  extents const shape{48, 20};
  auto const w = with_spectrum(shape, power_law(5, 0.3), 8);
  std::vector<float> const values(w.data(), w.data() + shape.size());
  std::vector<double> const wide(values.begin(), values.end());
  for (index_t const r : {5, 20}) {
    auto const found = device_factors(values, shape, r, factor_balance::components);
    CHECK(apart(wide, product_of(found.split, shape, r)) < 1e-6);
    CHECK(found.split.energies[4] > 0.01 * found.split.energies[0]);
    CHECK(found.split.energies[5] < 1e-10 * found.split.energies[0]);
  }
}

TEST_CASE("what cannot be split is refused on both sides alike") {
  machine<host_executor> host;
  extents const shape{12, 9};
  auto values = heavy_tailed(shape.size(), 4);
  auto const refusal = [&](index_t r) {
    auto const found = device_factors(values, shape, r, factor_balance::components).refusal;
    CHECK(found == factors_on(host, values, shape, r, factor_balance::components).refusal);
    return found;
  };
  CHECK(refusal(10) == "lowrank::factors: rank must be in [1, 9], got 10");
  CHECK(device_factors(values, shape, 2, factor_balance::components, output_bias::matched).refusal ==
        "lowrank::factors: matches biases of matrices on the host only");
  values[50] = std::numeric_limits<float>::quiet_NaN();
  CHECK(refusal(2) == "lowrank::find_output_basis: needs finite weights, got NaN or infinity");
}
