#include "lowrank/spectrum/spectrum.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <tuple>

namespace spectrum_test {

using namespace lowrank;

TEST_SUITE("spectrum") {
  spectrum const steps{.shape = {4, 6}, .values = {4, 2, 2, 1}};
  spectrum const leading{.shape = {4, 6}, .values = {4, 2}, .whole = 25};
  spectrum const flat{.shape = {3, 3}, .values = {5, 5, 5}};
  spectrum const zero{.shape = {2, 5}, .values = {0, 0}};
  spectrum const none{.shape = {0, 5}};

  TEST_CASE("energies and tails") {
    CHECK(steps.length() == 4);
    CHECK(steps.complete());
    CHECK(steps.energy() == 25);
    CHECK(steps.tails() == std::vector<double>{25, 9, 5, 1, 0});
    for (index_t r = 0; r <= 4; ++r) CHECK(steps.tail(r) == steps.tails()[static_cast<std::size_t>(r)]);
    CHECK(steps.energy_curve()[1] == doctest::Approx(16.0 / 25));
    // The missing values are known by their energy.
    CHECK(!leading.complete());
    CHECK(leading.energy() == 25);
    CHECK(leading.tails() == std::vector<double>{25, 9, 5});
    CHECK(leading.tail(1) == 9);
    CHECK(zero.tail(0) == 0);
    CHECK(zero.energy_curve() == std::vector<double>{1, 1, 1});
    CHECK(none.energy() == 0);
  }
  TEST_CASE("tails of values far apart do not cancel") {
    spectrum const wide{.shape = {3, 3}, .values = {1, 1e-9, 1e-12}};
    CHECK(wide.tail(1) == doctest::Approx(1e-18).epsilon(1e-5));
    CHECK(wide.tails()[2] == doctest::Approx(1e-24).epsilon(1e-12));
  }
  TEST_CASE("rank for a share of the energy: the least that reaches it") {
    CHECK(steps.rank_for_energy(0) == 0);
    CHECK(steps.rank_for_energy(16.0 / 25) == 1);
    CHECK(steps.rank_for_energy(0.65) == 2);
    CHECK(steps.rank_for_energy(0.95) == 3);
    CHECK(steps.rank_for_energy(1) == 4);
    CHECK(zero.rank_for_energy(0.9) == 0);
    CHECK(leading.rank_for_energy(0.8) == 2);
    CHECK_THROWS_AS(std::ignore = leading.rank_for_energy(0.81), argument_error);
    CHECK_THROWS_AS(std::ignore = steps.rank_for_energy(1.5), argument_error);
    CHECK_THROWS_AS(std::ignore = steps.rank_for_energy(std::nan("")), argument_error);
  }
  TEST_CASE("effective ranks") {
    CHECK(steps.stable_rank() == 25.0 / 16);
    CHECK(leading.stable_rank() == 25.0 / 16);
    CHECK(flat.stable_rank() == 3);
    CHECK(flat.entropy_rank() == doctest::Approx(3).epsilon(1e-14));
    // p = 4/9, 2/9, 2/9, 1/9
    double const entropy = -(4 * std::log(4.0 / 9) + 4 * std::log(2.0 / 9) + std::log(1.0 / 9)) / 9;
    CHECK(steps.entropy_rank() == doctest::Approx(std::exp(entropy)).epsilon(1e-14));
    CHECK(spectrum{.shape = {2, 2}, .values = {7, 0}}.entropy_rank() == 1);
    CHECK(zero.entropy_rank() == 0);
    CHECK(zero.stable_rank() == 0);
    CHECK(steps.numerical_rank(0.4) == 3);
    CHECK(steps.numerical_rank(0.5) == 1);
    CHECK_THROWS_AS(std::ignore = leading.entropy_rank(), argument_error);
  }
  TEST_CASE("normalised to [0, 1]; constant spectra are zeros") {
    CHECK(steps.normalised() == std::vector<double>{1, 1.0 / 3, 1.0 / 3, 0});
    CHECK(flat.normalised() == std::vector<double>{0, 0, 0});
    CHECK(zero.normalised() == std::vector<double>{0, 0});
    CHECK(none.normalised().empty());
    CHECK_THROWS_AS(std::ignore = leading.normalised(), argument_error);
  }
  TEST_CASE("what no matrix has is refused") {
    CHECK_NOTHROW(steps.check());
    CHECK_NOTHROW(leading.check());
    CHECK_THROWS_AS((spectrum{.shape = {1, 6}, .values = {4, 2}}.check()), shape_error);
    for (std::vector<double> const& values :
         {std::vector<double>{1, 2}, std::vector<double>{1, -1}, std::vector<double>{std::nan(""), 0},
          std::vector<double>{std::numeric_limits<double>::infinity(), 0}})
      CHECK_THROWS_AS((spectrum{.shape = {2, 2}, .values = values}.check()), argument_error);
    CHECK_THROWS_AS((spectrum{.shape = {2, 2}, .values = {1}, .whole = -1}.check()), argument_error);
  }
}

}  // namespace spectrum_test
