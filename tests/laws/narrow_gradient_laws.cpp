// A gradient in 16 bits is the gradient that its numbers are: what an optimizer does with it, it does with their fp32 copy.
#include <doctest/doctest.h>

#include <array>
#include <limits>

#include "lowrank/basis/tracked.hpp"
#include "lowrank/basis/two_sided.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"
#include "lowrank/optim/plan.hpp"
#include "lowrank/optim/presets.hpp"
#include "support/allocation_counter.hpp"
#include "support/optimizers.hpp"

namespace narrow_gradient_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("gradients in 16 bits");

/// The same numbers twice: in T, and as fp32.
template <class T>
struct both_forms {
  matrix<T> narrow;
  matrix<float> wide;

  both_forms(extents shape, index_t step) : narrow{shape}, wide{gradient_of_step(shape, step)} {
    for (index_t e = 0; e < shape.size(); ++e) {
      narrow.data()[e] = from_float<T>(wide.data()[e]);
      wide.data()[e] = to_float(narrow.data()[e]);
    }
  }
};

/// Five steps with each; the largest difference of weights, in units of how far they moved.
template <class T, class Optimizer>
double deviation(Optimizer const& optimizer, extents shape) {
  host_executor exec{{.threads = 2}};
  auto const start = random_matrix(shape, 1);
  auto w = copy_of(read(start)), v = copy_of(read(start));
  exec.reserve(std::max(optimizer.workspace_bytes(fp32_weight<>{w.view()}, narrow_gradient),
                        optimizer.workspace_bytes(fp32_weight<>{w.view()})));
  auto a = optimizer.init(exec, shape, 3), b = optimizer.init(exec, shape, 3);
  for (index_t k = 0; k < 5; ++k) {
    both_forms<T> const g{shape, k};
    REQUIRE(optimizer.step(exec, a, w.view(), g.narrow.view(), {.learning_rate = 0.01F}) == step_status::stepped);
    REQUIRE(optimizer.step(exec, b, v.view(), read(g.wide), {.learning_rate = 0.01F}) == step_status::stepped);
  }
  return relative_deviation(w, v, start);
}

template <class Finder>
[[nodiscard]] auto low_rank_with(Finder finder) {
  galore_adamw_with<Finder> out;
  out.rank = 6;
  out.refresh.period = 2;
  out.finder = std::move(finder);
  return out;
}

TEST_CASE("whole parameters: the same bits") {
  for (extents const shape : {extents{40, 56}, extents{1, 9}, extents{300, 24}}) {
    CAPTURE(shape);
    CHECK(deviation<bf16>(adamw{}, shape) == 0);
    CHECK(deviation<fp16>(adamw{}, shape) == 0);
    CHECK(deviation<bf16>(adamw_8bit{}, shape) == 0);
    CHECK(deviation<bf16>(adafactor{}, shape) == 0);
  }
}
TEST_CASE("in a subspace: the same trajectory to rounding, whatever finds the basis") {
  for (extents const shape : {extents{40, 56}, extents{56, 40}, extents{24, 300}}) {
    CAPTURE(shape);
    CHECK(deviation<bf16>(low_rank_with(basis::randomized{}), shape) < 2e-4);
    CHECK(deviation<fp16>(low_rank_with(basis::randomized{}), shape) < 2e-4);
    CHECK(deviation<bf16>(low_rank_with(basis::warm_start{}), shape) < 2e-4);
    CHECK(deviation<bf16>(low_rank_with(basis::tracked{}), shape) < 2e-4);
    CHECK(deviation<bf16>(low_rank_with(basis::two_sided<basis::randomized>{}), shape) < 2e-4);
  }
}

TEST_CASE("products: panels of a gradient that does not fit one, in either order in memory") {
  host_executor exec{{.threads = 2, .scratch_bytes = gradient_product_bytes(narrow_gradient, 3)}};
  // Wider and taller than a panel's 2^20 numbers, and both ways round.
  for (extents const shape : {extents{1100, 1000}, extents{2, (1 << 20) + 5}, extents{7, 5}}) {
    CAPTURE(shape);
    both_forms<bf16> const g{shape, 1};
    auto const b = random_matrix({shape.cols, 3}, 2), c = random_matrix({shape.rows, 3}, 3);
    auto out = copy_of(read(c)), expected = copy_of(read(c));
    multiply(exec, 0.5F, std::as_const(g.narrow).view(), read(b), 2.0F, out.view());
    multiply(exec, 0.5F, read(g.wide), read(b), 2.0F, expected.view());
    double const size = std::sqrt(static_cast<double>(shape.cols));
    CHECK(largest_difference(out.view(), expected.view()) < 1e-6 * size);
    auto const d = random_matrix({shape.rows, 3}, 4);
    matrix<float> turned{shape.cols, 3}, wanted{shape.cols, 3};
    multiply(exec, 1.0F, std::as_const(g.narrow).view().t(), read(d), 0.0F, turned.view());
    multiply(exec, 1.0F, read(g.wide).t(), read(d), 0.0F, wanted.view());
    CHECK(largest_difference(turned.view(), wanted.view()) < 1e-4);
  }
  // Nothing to add: C is scaled all the same.
  auto c = random_matrix({4, 3}, 3);
  auto const before = copy_of(read(c));
  multiply(exec, 1.0F, matrix_view<bf16 const>{nullptr, 4, 0, 0, 1}, matrix_view<float const>{nullptr, 0, 3, 3, 1},
           2.0F, c.view());
  for (index_t e = 0; e < 12; ++e) CHECK(c.data()[e] == 2 * before.data()[e]);
}

TEST_CASE("the Gram route sees the same energies") {
  extents const shape{20, 600};  // more columns than a panel has
  both_forms<bf16> const g{shape, 2};
  gram_range_options const options{.solver = gram_solver::eigen};
  host_executor exec{{.threads = 2}};
  exec.reserve(gram_range_bytes(shape, 5, options, narrow_gradient) + gram_range_bytes(shape, 5, options));
  matrix<float> q{20, 5}, p{20, 5};
  std::array<double, 5> narrow{}, wide{};
  find_range_by_gram(exec, g.narrow.view(), q.view(), options, {}, nullptr, narrow.data());
  find_range_by_gram(exec, read(g.wide), p.view(), options, {}, nullptr, wide.data());
  for (std::size_t k = 0; k < narrow.size(); ++k) CHECK(narrow[k] == doctest::Approx(wide[k]).epsilon(1e-9));
  CHECK(largest_difference(q.view(), p.view()) < 1e-5);
}

TEST_CASE("norms have the bits of the fp32 copy") {
  host_executor exec{{.threads = 2}};
  for (extents const shape : {extents{7, 5}, extents{33, 257}, extents{1, 5000}}) {
    both_forms<bf16> const g{shape, 4};
    double narrow = 0, turned = 0, wide = 0;
    squared_norm(exec, std::as_const(g.narrow).view(), &narrow);
    squared_norm(exec, std::as_const(g.narrow).view().t(), &turned);
    squared_norm(exec, read(g.wide), &wide);
    CHECK(narrow == wide);
    CHECK(turned == wide);
  }
}

TEST_CASE("bad numbers never reach weights or state") {
  extents const shape{24, 40};
  float const infinity = std::numeric_limits<float>::infinity();
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
    host_executor exec{{.threads = 1}};
    auto const optimizer = low_rank_with(basis::randomized{});
    auto w = random_matrix(shape, 1);
    exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}, narrow_gradient));
    auto state = optimizer.init(exec, shape, 0);
    both_forms<bf16> g{shape, 0};
    for (int k = 0; k < 3; ++k) std::ignore = optimizer.step(exec, state, w.view(), g.narrow.view(), {});
    auto const before = copy_of(read(w));
    auto const state_before = saved(state);
    g.narrow.data()[700] = to_bf16(bad);
    CHECK(optimizer.step(exec, state, w.view(), g.narrow.view(), {}) == step_status::skipped_bad_gradient);
    CHECK(largest_difference(w.view(), before.view()) == 0);
    CHECK(differences(saved(state), state_before, counts).empty());
  }
}

TEST_CASE("micro-batches: the same trajectory to rounding") {
  extents const shape{24, 40};
  host_executor exec{{.threads = 2}};
  auto optimizer = low_rank_with(basis::randomized{});
  optimizer.accumulate_in = accumulation::projected;
  auto const start = random_matrix(shape, 1);
  auto w = copy_of(read(start)), v = copy_of(read(start));
  exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}, narrow_gradient));
  auto a = optimizer.init(exec, shape, 3), b = optimizer.init(exec, shape, 3);
  for (index_t step = 0; step < 3; ++step) {
    for (index_t part = 0; part < 2; ++part) {
      both_forms<bf16> const g{shape, 2 * step + part};
      optimizer.accumulate(exec, a, std::as_const(g.narrow).view());
      optimizer.accumulate(exec, b, read(g.wide));
    }
    REQUIRE(optimizer.step(exec, a, fp32_weight<>{w.view()}, {.learning_rate = 0.01F}) == step_status::stepped);
    REQUIRE(optimizer.step(exec, b, fp32_weight<>{v.view()}, {.learning_rate = 0.01F}) == step_status::stepped);
  }
  CHECK(relative_deviation(w, v, start) < 2e-4);
}

TEST_CASE("scratch: exactly what workspace_bytes says, and no allocation in a step") {
  auto const check = [](auto const& optimizer, extents shape) {
    CAPTURE(shape);
    host_executor exec{{.threads = 1}};
    auto w = random_matrix(shape, 1);
    index_t const needed = optimizer.workspace_bytes(fp32_weight<>{w.view()}, narrow_gradient);
    exec.reserve(needed);
    auto state = optimizer.init(exec, shape, 0);
    both_forms<bf16> const g{shape, 0};
    allocation_counter const counter;
    for (int k = 0; k < 3; ++k)
      REQUIRE(optimizer.step(exec, state, w.view(), g.narrow.view(), {}) == step_status::stepped);
    CHECK(counter.count() == 0);
    CHECK(exec.arena().peak() == needed);
  };
  for (extents const shape : {extents{40, 56}, extents{300, 24}}) {
    check(low_rank_with(basis::randomized{}), shape);
    check(low_rank_with(basis::warm_start{}), shape);
    check(low_rank_with(basis::tracked{}), shape);
  }
}

TEST_CASE("a plan counts two bytes an element of such gradients") {
  auto const gradients = [](index_t tokens) {
    memory_plan plan;
    std::vector<planned_parameter> const parameters{{"a", {64, 48}}, {"b", {10, 7}}};
    auto const any = [](std::string_view, extents) { return true; };
    auto const matrices = [](std::string_view name, extents) { return name == "a"; };
    galore_adamw low;
    low.rank = 4;
    std::vector<plan_group> const groups{planned<bf16_weight<>>("low", low, matrices),
                                         planned<bf16_weight<>>("rest", adamw{}, any)};
    add_parameters(plan, parameters, groups, {.gradients = gradients_alive::all, .tokens = tokens});
    return plan.total(memory_kind::gradients);
  };
  CHECK(gradients(0) == 4 * (64 * 48 + 70));
  CHECK(gradients(narrow_gradient) == 2 * (64 * 48 + 70));
}

TEST_SUITE_END();

}  // namespace

}  // namespace narrow_gradient_laws
