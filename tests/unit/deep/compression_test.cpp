#include "lowrank/deep/compression.hpp"

#include <doctest/doctest.h>

#include "lowrank/deep/frozen_frame.hpp"
#include "lowrank/deep/recovered_rank.hpp"
#include "problems.hpp"

namespace compression_test {

namespace {

using namespace lowrank_test;
using lowrank::host_executor;

constexpr index_t d = 80, r = 3;
constexpr double top = 17, begin = 1e-2;  // singular values of the published experiment, a faster beginning

host_executor executor() { return host_executor{{.threads = 1, .scratch_bytes = 64 << 20}}; }

TEST_CASE("compressed deep factorization goes the way of the full one, down to its floor") {
  auto exec = executor();
  auto const phi = low_rank_target({d, d}, r, top);
  deep::dense_target<double> const target{phi.view()};
  double const norm = std::sqrt(squared_norm_of(phi.view()));
  auto full = deep::full_width<double>(exec, {d, d}, {.depth = 3, .scale = begin}, {.seed = 3});
  auto narrow = deep::compress(exec, full, target, {.rank = r, .outer_rate = 0}, {.seed = 4});
  CHECK(narrow.shape() == extents{d, d});
  CHECK(narrow.parameter_count() == 2 * d * 2 * r + 3 * 4 * r * r);
  double const floor = std::pow(begin, 3) * std::sqrt(static_cast<double>(d - 2 * r)) / norm;
  double apart = 0;
  for (int leg = 0; leg < 6; ++leg) {
    train(exec, full, target, 0.01, 200);
    train(exec, narrow, target, 0.01, 200);
    apart = std::max(
        apart, std::sqrt(2 * deep::loss(exec, full, deep::dense_target<double>{product_of(narrow).view()})) / norm);
  }
  CHECK(apart < 1.1 * floor);
  double const reached = relative_error(product_of(full), phi);
  CHECK(reached == doctest::Approx(floor).epsilon(0.02));
  CHECK(relative_error(product_of(narrow), phi) < 0.3 * floor);
  CHECK(deep::recovered(exec, narrow, 6).rank() == r);
  CHECK(deep::recovered(exec, full, 6).rank() == r);
}

TEST_CASE("at its beginning the compressed product is W V Vᵀ, between orthonormal factors, at any depth") {
  auto exec = executor();
  for (extents const shape : {extents{20, 20}, extents{18, 31}, extents{31, 18}})
    for (index_t const depth : {2, 3, 4}) {
      auto const phi = low_rank_target(shape, r, top);
      deep::observations<double> const target{shape, observed<double>(phi, 0.5)};
      auto const full = deep::full_width<double>(exec, shape, {.depth = depth, .scale = 0.1}, {.seed = 7});
      auto const narrow = deep::compress(exec, full, target, {.rank = r}, {.seed = 4});
      auto const right = narrow.factor(0).values.view().t();
      auto const left = narrow.factor(narrow.factor_count() - 1).values.view();
      CHECK(departure_from_orthonormal(right) < 1e-12);
      CHECK(departure_from_orthonormal(left) < 1e-12);
      if (shape.rows != shape.cols) continue;
      auto const expected = plain_product(plain_product(product_of(full).view(), right).view(), right.t());
      CHECK(largest_difference(product_of(narrow).view(), expected.view()) < 1e-13);
    }
}

TEST_CASE("completion: the outer factors must move a little, and an over-estimated rank is harmless") {
  auto exec = executor();
  auto const phi = low_rank_target({d, d}, r, top);
  deep::observations<double> const target{{d, d}, observed<double>(phi, 0.3)};
  auto full = deep::full_width<double>(exec, {d, d}, {.depth = 3, .scale = begin}, {.seed = 3});
  deep::residual_operator<double, deep::observations<double>> const beginning{exec, target};
  auto const error_of = [&](deep::deep_matrix<double> w) {
    train(exec, w, target, 0.03, 4000);
    return relative_error(product_of(w), phi);
  };
  double const stalled = error_of(deep::compress(exec, full, target, {.rank = r, .outer_rate = 0}, {.seed = 4}));
  double const exact = error_of(deep::compress(exec, full, target, {.rank = r, .outer_rate = 0.03F}, {.seed = 4}));
  double const streamed = error_of(deep::compressed_start(exec, beginning, {.depth = 3, .scale = begin},
                                                          {.rank = r, .outer_rate = 0.03F}, {.seed = 4}));
  double const wider = error_of(deep::compress(exec, full, target, {.rank = 2 * r, .outer_rate = 0.03F}, {.seed = 4}));
  CHECK(stalled > 0.1);
  CHECK(exact < 1e-6);
  CHECK(streamed < 1e-6);
  CHECK(wider < 1e-5);
}

TEST_CASE("fp32 follows fp64, and factorizes what is wide or tall") {
  auto exec = executor();
  for (extents const shape : {extents{40, 70}, extents{70, 40}}) {
    auto const phi = low_rank_target(shape, r, top);
    auto const narrow_phi = cast<float>(phi);
    deep::dense_target<float> const target{narrow_phi.view()};
    auto full = deep::full_width<float>(exec, shape, {.depth = 3, .scale = 0.03}, {.seed = 3});
    auto narrow = deep::compress(exec, full, target, {.rank = r, .outer_rate = 0}, {.seed = 4});
    train(exec, full, target, 0.01, 600);
    train(exec, narrow, target, 0.01, 600);
    CHECK(relative_error(product_of(full), phi) < 2e-4);
    CHECK(relative_error(product_of(narrow), phi) < 2e-5);
  }
}

TEST_CASE("a frozen frame steps like the compressed matrix that it was taken from") {
  auto exec = executor();
  auto const phi = low_rank_target({40, 50}, r, top);
  deep::dense_target<double> const target{phi.view()};
  auto const full = deep::full_width<double>(exec, {40, 50}, {.depth = 3, .scale = 0.1}, {.seed = 3});
  auto narrow = deep::compress(exec, full, target, {.rank = r, .outer_rate = 0}, {.seed = 4});
  auto frame = deep::freeze_outer(exec, narrow, target);
  double const loss = train(exec, narrow, target, 0.01, 100);
  auto const known = frame.known();
  CHECK(train(exec, frame.inner, known, 0.01, 100) + frame.outside == doctest::Approx(loss).epsilon(1e-9));
  auto again = deep::compress(exec, full, target, {.rank = r, .outer_rate = 0}, {.seed = 4});
  deep::thaw_outer(exec, frame, again);
  CHECK(relative_error(product_of(again), product_of(narrow)) < 1e-10);
}

TEST_CASE("what cannot be compressed is refused") {
  auto exec = executor();
  matrix<double> phi = low_rank_target({10, 12}, 2, top);
  deep::dense_target<double> const target{phi.view()};
  auto const full = deep::full_width<double>(exec, {10, 12}, {}, {});
  CHECK_THROWS_AS(std::ignore = deep::compress(exec, full, target, {.rank = 6}, {}), lowrank::argument_error);
  CHECK_THROWS_AS(std::ignore = deep::compress(exec, full, target, {.rank = 0}, {}), lowrank::argument_error);
  CHECK_NOTHROW(std::ignore = deep::compress(exec, full, target, {.rank = 5}, {}));
  CHECK_THROWS_AS(std::ignore = deep::full_width<double>(exec, {10, 12}, {.depth = 1}, {}), lowrank::argument_error);
  CHECK_THROWS_AS(std::ignore = deep::full_width<double>(exec, {10, 12}, {.scale = 0}, {}), lowrank::argument_error);
  CHECK_THROWS_AS(std::ignore = deep::full_width<double>(exec, {0, 12}, {}, {}), lowrank::shape_error);
  CHECK_THROWS_AS(std::ignore = deep::compress(exec, full, target, {.rank = 2, .outer_rate = -1}, {}),
                  lowrank::argument_error);
}

TEST_SUITE("nonfinite") {
  TEST_CASE("a target with NaN has no directions, and a step on it changes nothing") {
    auto exec = executor();
    matrix<double> phi = low_rank_target({10, 12}, 2, top);
    phi(3, 4) = NAN;
    deep::dense_target<double> const target{phi.view()};
    auto full = deep::full_width<double>(exec, {10, 12}, {.scale = 0.1}, {});
    CHECK_THROWS_AS(std::ignore = deep::compress(exec, full, target, {.rank = 2}, {}), lowrank::argument_error);
    auto const before = product_of(full);
    train(exec, full, target, 0.01, 2);
    CHECK(same_bits(before, product_of(full)));
  }
}

}  // namespace

}  // namespace compression_test
