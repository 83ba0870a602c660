#include "lowrank/factor/shifted.hpp"

#include <doctest/doctest.h>

#include "lowrank/factor/whitened.hpp"
#include "lowrank/spectrum/cross_moment.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace shifted_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// A layer, the inputs it was made for, and what has become of them.
struct shifted_problem {
  matrix<float> w, x, changed;
  matrix<double> cross, moment;
  activation_statistics statistics;

  shifted_problem(host_executor& exec, extents shape, index_t rows)
      : w{random_matrix(shape, 1)},
        x{random_matrix({rows, shape.cols}, 2)},
        changed{random_matrix({rows, shape.cols}, 3)},
        cross{shape.cols, shape.cols},
        moment{shape.cols, shape.cols},
        statistics{shape.cols} {
    for (index_t t = 0; t < rows; ++t)
      for (index_t j = 0; j < shape.cols; ++j) {
        float const channel = j == 4 ? 100.0F : 1.0F / static_cast<float>(1 + j % 5);
        x(t, j) = channel * (x(t, j) + 1.0F);
        changed(t, j) =
            0.8F * x(t, j) + 0.3F * x(t, (j + 1) % shape.cols) / (j == 3 ? 100.0F : 1.0F) + 0.1F * changed(t, j);
      }
    exec.reserve(
        std::max(cross_moment::workspace_bytes(shape.cols), activation_statistics::workspace_bytes(shape.cols)));
    cross_moment pairs{shape.cols};
    pairs.add(exec, x.view(), changed.view());
    pairs.moment(cross.view());
    statistics.add(exec, changed.view());
    statistics.second_moment(moment.view());
  }
  /// mean ‖W x - M x'‖².
  template <class M>
  [[nodiscard]] double loss(matrix<M> const& m) const {
    auto const wanted = plain_product(x.view(), w.view().t()), found = plain_product(changed.view(), m.view().t());
    double sum = 0;
    for (index_t e = 0; e < wanted.shape().size(); ++e) sum += std::pow(wanted.data()[e] - found.data()[e], 2);
    return sum / static_cast<double>(x.shape().rows);
  }
  [[nodiscard]] double loss(factor_pair const& pair) const { return loss(plain_product(pair.u.view(), pair.v.view())); }
};

}  // namespace

TEST_SUITE("layers on changed inputs") {
  TEST_CASE("the target fits the original outputs better than any matrix beside it") {
    host_executor exec{{.threads = 2}};
    shifted_problem const it{exec, {12, 9}, 400};
    auto target = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = 1e-9});
    double const best = it.loss(target);
    CHECK(best < 0.5 * it.loss(it.w));
    for (index_t e = 0; e < target.shape().size(); e += 5)
      for (float const step : {0.01F, -0.01F}) {
        float const at = target.data()[e];
        target.data()[e] += step;
        CHECK(it.loss(target) > best);
        target.data()[e] = at;
      }
  }
  TEST_CASE("a massive channel does not keep the others from being corrected") {
    host_executor exec{{.threads = 1}};
    shifted_problem const it{exec, {12, 9}, 400};  // channel 4 has 1e4 times the energy of others
    auto const exact = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = 1e-9});
    auto const target = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = 1e-3});
    CHECK(it.loss(target) <= 1.05 * it.loss(exact));
  }
  TEST_CASE("without a shift, or with all trust in W, the target is W") {
    host_executor exec{{.threads = 1}};
    shifted_problem const it{exec, {12, 9}, 400};
    auto const same = shifted_target(exec, it.w.view(), it.moment.view(), it.moment.view());
    CHECK(largest_difference(same.view(), it.w.view()) <= 1e-6);
    auto const own = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.correction = 0});
    CHECK(largest_difference(own.view(), it.w.view()) <= 1e-6);
    auto const trusted = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = 1e9});
    CHECK(largest_difference(trusted.view(), it.w.view()) <= 1e-5);
    double before = it.loss(it.w);
    for (double const correction : {0.25, 0.5, 1.0}) {
      auto const between =
          shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.correction = correction});
      CHECK(it.loss(between) < before);
      before = it.loss(between);
    }
  }
  TEST_CASE("fewer rows than features and silent channels leave it finite") {
    host_executor exec{{.threads = 1}};
    shifted_problem it{exec, {12, 30}, 10};
    double before = std::numeric_limits<double>::max(), loss = 0;
    for (double const ridge : {1e-3, 1e-1, 10.0, 1000.0}) {
      auto const target = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = ridge});
      double distance = 0;
      for (index_t e = 0; e < target.shape().size(); ++e)
        distance += std::pow(static_cast<double>(target.data()[e]) - static_cast<double>(it.w.data()[e]), 2);
      CHECK(distance < before);
      CHECK(it.loss(target) > loss);
      before = distance, loss = it.loss(target);
    }
    CHECK(before < 1e-3 * squared_norm_of(it.w.view()));
    CHECK(loss < it.loss(it.w));
    matrix<double> const none{30, 30};
    auto const kept = shifted_target(exec, it.w.view(), none.view(), none.view());
    CHECK(largest_difference(kept.view(), it.w.view()) <= 1e-6);
  }
  TEST_CASE("whitened factors of the target beat those of W, and no refit improves them") {
    host_executor exec{{.threads = 2}};
    shifted_problem const it{exec, {20, 16}, 500};
    auto const target = shifted_target(exec, it.w.view(), it.cross.view(), it.moment.view(), {.ridge = 1e-9});
    auto pair = factorize(exec, factor::whitened{}, target.view(), it.statistics, 6);
    auto of_w = factorize(exec, factor::whitened{}, it.w.view(), it.statistics, 6);
    double const best = it.loss(pair), plain = it.loss(of_w);
    CHECK(best < plain);
    refit_u(exec, target.view(), it.moment.view(), pair.view());
    CHECK(it.loss(pair) == doctest::Approx(best).epsilon(1e-5));
    refit_v(exec, target.view(), pair.view());
    CHECK(it.loss(pair) == doctest::Approx(best).epsilon(1e-5));
    // From another start each refit helps, and together they go there.
    refit_v(exec, target.view(), of_w.view());
    double before = it.loss(of_w);
    CHECK(before <= plain);
    for (int round = 0; round < 40; ++round) {
      refit_u(exec, target.view(), it.moment.view(), of_w.view());
      CHECK(it.loss(of_w) <= before * (1 + 1e-6));
      refit_v(exec, target.view(), of_w.view());
      CHECK(it.loss(of_w) <= before * (1 + 1e-6));
      before = it.loss(of_w);
    }
    CHECK(before == doctest::Approx(best).epsilon(0.01));
  }
  TEST_CASE("what cannot be meant is refused") {
    host_executor exec{{.threads = 1}};
    matrix<float> const w{4, 3};
    matrix<double> const c{3, 3}, wrong{4, 4};
    factor_pair pair{{4, 3}, 2}, other{{3, 3}, 2};
    CHECK_THROWS_AS(std::ignore = shifted_target(exec, w.view(), wrong.view(), c.view()), shape_error);
    CHECK_THROWS_AS(std::ignore = shifted_target(exec, w.view(), c.view(), wrong.view()), shape_error);
    CHECK_THROWS_AS(std::ignore = shifted_target(exec, w.view(), c.view(), c.view(), {.ridge = 0}), argument_error);
    CHECK_THROWS_AS(std::ignore = shifted_target(exec, w.view(), c.view(), c.view(), {.correction = 2}),
                    argument_error);
    CHECK_THROWS_AS(refit_v(exec, w.view(), other.view()), shape_error);
    CHECK_THROWS_AS(refit_u(exec, w.view(), wrong.view(), pair.view()), shape_error);
  }
}

}  // namespace shifted_test
