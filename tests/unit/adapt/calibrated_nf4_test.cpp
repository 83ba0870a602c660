// NF4 that knows its inputs, what it does to a loss, and formats under a budget.
#include "lowrank/adapt/calibrated_nf4.hpp"

#include <doctest/doctest.h>

#include "lowrank/adapt/format_choice.hpp"
#include "lowrank/adapt/nf4_checkpoint.hpp"
#include "support/executors.hpp"
#include "support/optimizers.hpp"
#include "support/statistics.hpp"

namespace calibrated_nf4_test {

namespace {

using namespace lowrank;
using namespace lowrank::adapt;
using namespace lowrank_test;

matrix<float> dense_of(host_executor& exec, frozen_matrix const& w) {
  exec.reserve(w.workspace_bytes());
  matrix<float> out{w.shape()};
  w.dense(exec, out.view());
  return out;
}

}  // namespace

TEST_SUITE("calibrated nf4") {
  TEST_CASE("an ordinary nf4 matrix, in as many bytes, that outputs suffer less from") {
    host_executor exec{{.threads = 2}};
    extents const shape{50, 130};
    auto const w = random_matrix(shape, 1);
    auto const inputs = statistics_of(exec, shape.cols, 300, 2);
    auto const gradients = statistics_of(exec, shape.rows, 300, 3);
    frozen_matrix const nearest{exec, w.view(), frozen_format::nf4}, eight{exec, w.view(), frozen_format::int8};
    auto const kept = calibrated_nf4(exec, w.view(), inputs);
    CHECK(kept.format() == frozen_format::nf4);
    CHECK(kept.shape() == shape);
    CHECK(kept.bytes() == nearest.bytes());
    auto const loss = [&](frozen_matrix const& k) { return loss_increase(exec, w.view(), k, inputs, gradients); };
    CHECK(loss(kept) < 0.4 * loss(nearest));
    CHECK(loss(eight) < 0.05 * loss(kept));
    CHECK(loss(frozen_matrix{exec, w.view(), frozen_format::fp32}) == 0);
    CHECK(to_bitsandbytes("w", kept).size() == 6);

    strided_copy strided{w.view()};
    CHECK(same_bits(dense_of(exec, calibrated_nf4(exec, strided.view(), inputs)), dense_of(exec, kept)));
  }

  TEST_CASE("the increase of the loss is that of K-FAC with a diagonal of output gradients") {
    host_executor exec{{.threads = 2}};
    extents const shape{6, 9};
    auto const w = random_matrix(shape, 1);
    auto const inputs = statistics_of(exec, shape.cols, 40, 2);
    auto const gradients = statistics_of(exec, shape.rows, 40, 3);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    auto const back = dense_of(exec, kept);
    matrix<double> c{shape.cols, shape.cols};
    inputs.second_moment(c.view());
    double wanted = 0;
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j)
        for (index_t k = 0; k < shape.cols; ++k)
          wanted += gradients.mean_square(i) / 2 * static_cast<double>(w(i, j) - back(i, j)) * c(j, k) *
                    static_cast<double>(w(i, k) - back(i, k));
    CHECK(loss_increase(exec, w.view(), kept, inputs, gradients) == doctest::Approx(wanted).epsilon(1e-4));
  }

  TEST_CASE("statistics of another layer are refused, and such as have seen nothing") {
    host_executor exec{{.threads = 1}};
    auto const w = random_matrix({6, 9}, 1);
    auto const inputs = statistics_of(exec, 9, 40, 2), outputs = statistics_of(exec, 6, 40, 2);
    frozen_matrix const kept{exec, w.view(), frozen_format::nf4};
    CHECK_THROWS_AS((void)calibrated_nf4(exec, w.view(), outputs), shape_error);
    CHECK_THROWS_AS((void)calibrated_nf4(exec, w.view(), activation_statistics{9}), state_error);
    CHECK_THROWS_AS((void)calibrated_nf4(exec, w.view(), inputs, {.damping = -1}), argument_error);
    CHECK_THROWS_AS((void)loss_increase(exec, w.view(), kept, outputs, inputs), shape_error);
    CHECK_THROWS_AS((void)loss_increase(exec, w.view(), frozen_matrix{}, inputs, outputs), shape_error);
    CHECK_THROWS_AS((void)loss_increase(exec, w.view(), kept, inputs, activation_statistics{6}), state_error);
    CHECK_THROWS_AS((void)loss_increase(exec, w.view(), kept, activation_statistics{9}, outputs), state_error);
  }

  TEST_CASE("formats: most gain for a byte first, and never more bytes than there are") {
    using enum frozen_format;
    std::vector<std::vector<format_option>> const matrices{
        {{nf4, 10, 5.0}, {int8, 20, 1.0}},                   // 0.4 for a byte
        {{int8, 200, 0.0}, {nf4, 100, 30.0}},                // 0.3, in another order
        {{nf4, 10, 9.0}, {int8, 20, 0.0}, {bf16, 40, 0.0}},  // 0.9
        {{nf4, 10, 1.0}, {int8, 20, 2.0}},                   // worse in more bytes
    };
    auto const chosen = [&](index_t budget) { return choose_formats(matrices, budget); };
    using choice = std::vector<std::size_t>;
    CHECK(chosen(130) == choice{0, 1, 0, 0});
    CHECK(chosen(139) == choice{0, 1, 0, 0});
    CHECK(chosen(140) == choice{0, 1, 1, 0});
    CHECK(chosen(150) == choice{1, 1, 1, 0});
    CHECK(chosen(249) == choice{1, 1, 1, 0});
    CHECK(chosen(250) == choice{1, 0, 1, 0});
    CHECK(chosen(100000) == choice{1, 0, 1, 0});
    CHECK_THROWS_AS((void)chosen(129), argument_error);
    CHECK(choose_formats({}, 0).empty());
    std::vector<std::vector<format_option>> const none{{}}, bad{{{nf4, 1, std::numeric_limits<double>::quiet_NaN()}}},
        negative{{{nf4, -1, 1.0}}};
    CHECK_THROWS_AS((void)choose_formats(none, 10), argument_error);
    CHECK_THROWS_AS((void)choose_formats(bad, 10), argument_error);
    CHECK_THROWS_AS((void)choose_formats(negative, 10), argument_error);
  }
}

}  // namespace calibrated_nf4_test
