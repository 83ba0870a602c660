// Moments that turn with the basis, against the formulas in fp64, and what becomes of a step after the basis has changed.
#include "lowrank/transport/rotate.hpp"

#include <doctest/doctest.h>

#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/full_rank.hpp"
#include "lowrank/refresh/energy_rank.hpp"
#include "support/allocation_counter.hpp"
#include "support/compositions.hpp"

namespace rotate_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;
using transport::unknown_variance;

/// A mean of squares alone, as RMSprop has.
struct squares_formula {
  double beta{0.99};
  decay_order decay{decay_order::before};
  static constexpr int moment_count = 1;
  static constexpr std::array moment_orders{moment_order::second};
  [[nodiscard]] double moment_beta(std::size_t) const noexcept { return beta; }
  struct scalars {
    float beta, gain;
  };
  void check() const {}
  [[nodiscard]] scalars at(std::int64_t, float) const noexcept {
    return {static_cast<float>(beta), static_cast<float>(1 - beta)};
  }
  [[nodiscard]] float rate(std::int64_t, float learning_rate) const noexcept { return learning_rate; }
  [[nodiscard]] static auto direction(auto g, auto& m, scalars const& s) noexcept {
    using real = decltype(g);
    m[0] = real{s.beta} * m[0] + real{s.gain} * (g * g);
    return g / (square_root(m[0]) + real{1e-8F});
  }
};
using squares = rule::elementwise<squares_formula>;
static_assert(transport::rotate::fits<rule::adam> && transport::rotate::fits<rule::sgd> &&
              transport::rotate::fits<rule::lion> && transport::rotate::fits<squares>);
static_assert(!transport::rotate::fits<rule::adafactor> && !transport::rotate::fits<rule::plain_sgd>);
static_assert(transport_policy<transport::rotate, rule::adam, host_executor>);

/// Facing moments of a rule after some steps of its own, and the state they are in.
template <class Rule>
struct moved_rule {
  Rule rule{};
  side where{};
  extents from{};
  state_of<Rule, host_space> state;

  moved_rule(host_executor& exec, Rule given, side s, extents inner, extents capacity, index_t steps)
      : rule{given}, where{s}, from{inner}, state{rule.init(exec, facing(s, capacity))} {
    for (index_t k = 0; k < steps; ++k) {
      auto const g = gradient_of_step(facing(s, inner), 40 + k);
      matrix<float> n{facing(s, inner)};
      step_record record{.learning_rate = 0.1F};
      rule.begin(exec, state, &record);
      rule.update(exec, state, read(g), n.view(), &record);
    }
  }
  [[nodiscard]] matrix<double> moment(std::size_t k, extents shape) {
    matrix<double> out{shape};
    auto const m = natural<host_space>(where, state.moment[k].data(), shape);
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) out(i, j) = static_cast<double>(m(i, j));
    return out;
  }
  void turn(host_executor& exec, transport::rotate const& rotate, matrix<float> const& left, matrix<float> const* right,
            extents to) {
    transport_inputs<host_executor> in{where, from, to};
    in.change.left = left.view();
    if (right != nullptr) in.change.right = right->view();
    rotate.apply(exec, rule, state, in);
    from = to;
  }
};

/// C ∘ C, with what the rows lack spread over the columns where asked.
matrix<double> squared(matrix<float> const& c, unknown_variance unknown) {
  matrix<double> out{c.shape()};
  for (index_t i = 0; i < c.shape().rows; ++i) {
    double sum = 0;
    for (index_t j = 0; j < c.shape().cols; ++j) sum += out(i, j) = std::pow(static_cast<double>(c(i, j)), 2);
    if (unknown == unknown_variance::column_mean)
      for (index_t j = 0; j < c.shape().cols; ++j)
        out(i, j) += std::max(0.0, 1 - sum) / static_cast<double>(c.shape().cols);
  }
  return out;
}
template <class L, class M>
matrix<double> turned(L const& left, M const& m, L const* right) {
  auto half = plain_product(left.view(), m.view());
  return right == nullptr ? std::move(half) : plain_product(half.view(), right->view().t());
}
/// LDAdam, Algorithm 1, lines 6 and 7.
struct plain_moments {
  matrix<double> m, v;
};
plain_moments plain_rotation(matrix<double> const& m, matrix<double> const& v, double w1, double w2,
                             matrix<float> const& left, matrix<float> const* right, unknown_variance unknown) {
  plain_moments out{turned(left, m, right), {}};
  matrix<double> centred{m.shape()};
  for (index_t e = 0; e < m.shape().size(); ++e) centred.data()[e] = v.data()[e] / w2 - std::pow(m.data()[e] / w1, 2);
  auto const s_left = squared(left, unknown);
  auto const s_right = right != nullptr ? squared(*right, unknown) : matrix<double>{0, 0};
  out.v = turned(s_left, centred, right != nullptr ? &s_right : nullptr);
  for (index_t e = 0; e < out.v.shape().size(); ++e)
    out.v.data()[e] = w2 * std::abs(out.v.data()[e] + std::pow(out.m.data()[e] / w1, 2));
  return out;
}
double largest(matrix<double> const& a) {
  double most = 0;
  for (index_t e = 0; e < a.shape().size(); ++e) most = std::max(most, std::abs(a.data()[e]));
  return most;
}
/// Overlap of two bases of an m-dimensional space.
matrix<float> overlap(index_t rows, index_t cols, index_t m, std::uint64_t seed) {
  auto const a = orthonormal_columns(m, rows, seed), b = orthonormal_columns(m, cols, seed + 1);
  auto const c = plain_product(a.view(), b.view().t());
  matrix<float> out{rows, cols};
  for (index_t e = 0; e < out.shape().size(); ++e) out.data()[e] = static_cast<float>(c.data()[e]);
  return out;
}
constexpr double w1_of(index_t t) { return 1 - std::pow(0.9, static_cast<double>(t)); }
constexpr double w2_of(index_t t) { return 1 - std::pow(0.999, static_cast<double>(t)); }

TEST_SUITE_BEGIN("rotate");

TEST_CASE("the moments of Adam are LDAdam's, or with the mean variance where that is unknown") {
  for (side const where : {side::left, side::right})
    for (bool const two_sided : {false, true})
      for (auto const unknown : {unknown_variance::zero, unknown_variance::column_mean})
        for (index_t const to : {6, 4, 9})
          for (index_t const t : {1, 2, 30}) {
            if (two_sided && where == side::right) continue;
            CAPTURE(two_sided);
            CAPTURE(to);
            CAPTURE(t);
            extents const inner{6, two_sided ? 6 : 50}, next{to, two_sided ? to : 50}, capacity{9, two_sided ? 9 : 50};
            host_executor exec{{.threads = 2}};
            transport::rotate const rotate{unknown};
            exec.reserve(rotate.workspace_bytes(capacity, two_sided ? 2 : 1));
            moved_rule<rule::adam> one{exec, {}, where, inner, capacity, t};
            auto const left = overlap(to, 6, 12, 3), right = overlap(to, 6, 15, 7);
            auto const expected = plain_rotation(one.moment(0, inner), one.moment(1, inner), w1_of(t), w2_of(t), left,
                                                 two_sided ? &right : nullptr, unknown);
            allocation_counter const allocations;
            one.turn(exec, rotate, left, two_sided ? &right : nullptr, next);
            CHECK(allocations.count() == 0);
            CHECK(exec.arena().available() == exec.arena().reserved());
            CHECK(largest_difference(one.moment(0, next).view(), expected.m.view()) <= 1e-6 * largest(expected.m));
            // Relative to the squares that are subtracted and added on the way.
            double const scale = largest(expected.v) + w2_of(t) * std::pow(largest(expected.m) / w1_of(t), 2);
            CHECK(largest_difference(one.moment(1, next).view(), expected.v.view()) <= 2e-6 * scale);
            CHECK(*one.state.steps.data() == t);
          }
}

TEST_CASE("an identity changes nothing, a signed permutation of columns permutes") {
  for (side const where : {side::left, side::right})
    for (auto const unknown : {unknown_variance::zero, unknown_variance::column_mean}) {
      extents const inner{6, 50};
      transport::rotate const rotate{unknown};
      host_executor exec{{.threads = 2, .scratch_bytes = rotate.workspace_bytes(inner, 1)}};
      moved_rule<rule::adam> one{exec, {}, where, inner, inner, 20};
      auto const m = one.moment(0, inner), v = one.moment(1, inner);
      matrix<float> c{6, 6};
      for (index_t i = 0; i < 6; ++i) c(i, i) = 1;
      one.turn(exec, rotate, c, nullptr, inner);
      CHECK(largest_difference(one.moment(0, inner).view(), m.view()) == 0);
      for (index_t e = 0; e < inner.size(); ++e)
        CHECK(one.moment(1, inner).data()[e] == doctest::Approx(v.data()[e]).epsilon(1e-6));
      for (index_t i = 0; i < 6; ++i) c(i, i) = 0;
      for (index_t i = 0; i < 6; ++i) c(i, (i + 2) % 6) = i % 2 == 0 ? 1.0F : -1.0F;
      one.turn(exec, rotate, c, nullptr, inner);
      for (index_t i = 0; i < 6; ++i)
        for (index_t j = 0; j < 50; ++j) {
          CHECK(one.moment(0, inner)(i, j) == (i % 2 == 0 ? 1 : -1) * m((i + 2) % 6, j));
          CHECK(one.moment(1, inner)(i, j) == doctest::Approx(v((i + 2) % 6, j)).epsilon(2e-6));
        }
    }
}

TEST_CASE("second moments are never negative, whatever the change") {
  extents const inner{6, 50};
  for (auto const unknown : {unknown_variance::zero, unknown_variance::column_mean}) {
    transport::rotate const rotate{unknown};
    host_executor exec{{.threads = 1, .scratch_bytes = rotate.workspace_bytes(inner, 1)}};
    // After silence and then a burst, the square of the mean is larger than the mean of the squares.
    moved_rule<rule::adam> one{exec, {}, side::left, inner, inner, 3};
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      for (index_t e = 0; e < inner.size(); ++e)
        one.state.moment[1].data()[e] = 0.01F * one.state.moment[0].data()[e] * one.state.moment[0].data()[e];
      auto const left = overlap(6, 6, 8, 2 * seed);
      auto const expected =
          plain_rotation(one.moment(0, inner), one.moment(1, inner), w1_of(3), w2_of(3), left, nullptr, unknown);
      one.turn(exec, rotate, left, nullptr, inner);
      auto const v = one.moment(1, inner);
      for (index_t e = 0; e < inner.size(); ++e) REQUIRE(v.data()[e] >= 0);
      CHECK(largest_difference(v.view(), expected.v.view()) <= 1e-5 * largest(expected.v));
    }
  }
}

TEST_CASE_TEMPLATE("rules with a first moment alone: M' = C M", Rule, rule::sgd, rule::lion) {
  for (side const where : {side::left, side::right})
    for (bool const two_sided : {false, true}) {
      if (two_sided && where == side::right) continue;
      extents const inner{6, two_sided ? 6 : 50}, next{4, two_sided ? 4 : 50};
      transport::rotate const rotate{};
      host_executor exec{{.threads = 1, .scratch_bytes = rotate.workspace_bytes(inner, two_sided ? 2 : 1)}};
      moved_rule<Rule> one{exec, {}, where, inner, inner, 5};
      auto const left = overlap(4, 6, 12, 3), right = overlap(4, 6, 15, 7);
      auto const expected = turned(left, one.moment(0, inner), two_sided ? &right : nullptr);
      one.turn(exec, rotate, left, two_sided ? &right : nullptr, next);
      CHECK(largest_difference(one.moment(0, next).view(), expected.view()) <= 1e-6 * largest(expected));
    }
}

TEST_CASE("rules with a second moment alone: V' = S V") {
  extents const inner{6, 50};
  for (auto const unknown : {unknown_variance::zero, unknown_variance::column_mean}) {
    transport::rotate const rotate{unknown};
    host_executor exec{{.threads = 1, .scratch_bytes = rotate.workspace_bytes(inner, 1)}};
    moved_rule<squares> one{exec, {}, side::right, inner, inner, 5};
    auto const left = overlap(6, 6, 12, 3);
    auto const v = one.moment(0, inner);
    auto const expected = plain_product(squared(left, unknown).view(), v.view());
    one.turn(exec, rotate, left, nullptr, inner);
    CHECK(largest_difference(one.moment(0, inner).view(), expected.view()) <= 1e-6 * largest(expected));
  }
}

/// Orthonormal columns, another set at every call.
basis::given wandering(index_t m, index_t r, matrix<float>& shown) {
  return {{}, [m, r, &shown](index_t call, side) {
            auto const q = orthonormal_columns(m, r, 300 + static_cast<std::uint64_t>(call));
            for (index_t i = 0; i < m; ++i)
              for (index_t k = 0; k < r; ++k) shown(i, k) = static_cast<float>(q(k, i));
            return read(shown);
          }};
}

TEST_CASE("steps of Adam in a subspace that changes are those of the formulas in fp64") {
  for (extents const shape : {extents{14, 22}, extents{22, 14}})
    for (auto const unknown : {unknown_variance::zero, unknown_variance::column_mean})
      for (index_t const period : {1, 3}) {
        CAPTURE(shape);
        CAPTURE(period);
        index_t const r = 4;
        host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
        compose<rule::adam, basis::given, transport::rotate> o{.rank = r, .refresh = {period}, .transport = {unknown}};
        matrix<float> shown{14, r};
        o.finder = wandering(14, r, shown);
        auto state = o.init(exec, shape, 1);
        auto const start = random_matrix(shape, 1);
        auto w = copy_of(read(start));
        matrix<double> plain{14, 22}, m{r, 22}, v{r, 22};
        matrix<float> old{14, r};
        for (index_t k = 0; k < 8; ++k) {
          auto const g = gradient_of_step(shape, k);
          o.step(exec, state, w.view(), read(g), step_options{.learning_rate = 0.01F});
          if (k % period == 0 && k > 0) {
            auto const c = plain_product(read(shown).t(), read(old));
            matrix<float> left{r, r};
            for (index_t e = 0; e < r * r; ++e) left.data()[e] = static_cast<float>(c.data()[e]);
            auto moved = plain_rotation(m, v, w1_of(k), w2_of(k), left, nullptr, unknown);
            m = std::move(moved.m), v = std::move(moved.v);
          }
          old = copy_of(read(shown));
          auto const projected = plain_product(read(shown).t(), facing(state.facing_side, read(g)));
          matrix<double> n{r, 22};
          for (index_t e = 0; e < r * 22; ++e) {
            double const x = projected.data()[e];
            m.data()[e] = 0.9 * m.data()[e] + 0.1 * x;
            v.data()[e] = 0.999 * v.data()[e] + 0.001 * x * x;
            n.data()[e] = m.data()[e] / w1_of(k + 1) / (std::sqrt(v.data()[e] / w2_of(k + 1)) + 1e-8);
          }
          auto const lifted = plain_product(read(shown), n.view());
          for (index_t e = 0; e < plain.shape().size(); ++e) plain.data()[e] -= 0.01 * lifted.data()[e];
        }
        auto const faced = facing(state.facing_side, read(w)), from = facing(state.facing_side, read(start));
        double worst = 0;
        for (index_t i = 0; i < 14; ++i)
          for (index_t j = 0; j < 22; ++j)
            worst = std::max(
                worst, std::abs(static_cast<double>(faced(i, j)) - static_cast<double>(from(i, j)) - plain(i, j)));
        CHECK(worst <= 1e-4 * largest(plain));
      }
}

/// The largest element of the first step in directions that are new to the subspace, in units of the rate.
double kick(auto const& transport, float noise) {
  extents const shape{8, 12};
  index_t const steps = 4000;
  matrix<float> p{8, 4}, q{8, 4};
  for (index_t k = 0; k < 4; ++k) p(k, k) = q(4 + k, k) = 1;
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::adam, basis::given, std::remove_cvref_t<decltype(transport)>> o{
      .rank = 4, .refresh = {steps}, .transport = transport};
  o.finder = {{}, [&](index_t call, side) { return call == 0 ? read(p) : read(q); }};
  auto state = o.init(exec, shape, 1);
  matrix<float> w{shape}, common{shape};
  for (index_t e = 0; e < shape.size(); ++e) common.data()[e] = 1;
  for (index_t k = 0; k < steps; ++k)
    o.step(exec, state, w.view(), read(noisy_gradient(common, noise, k)), step_options{.learning_rate = 1e-3F});
  auto const before = copy_of(read(w));
  o.step(exec, state, w.view(), read(noisy_gradient(common, noise, steps)), step_options{.learning_rate = 1});
  return largest_difference(read(w).row_range(4, 8), read(before).row_range(4, 8));
}

TEST_CASE(
    "a new direction: without a variance the first step is (1 - b1) / sqrt(1 - b2) rates, with the mean one it is "
    "not") {
  for (float const noise : {0.3F, 3.0F}) {
    CHECK(kick(transport::rotate{unknown_variance::zero}, noise) ==
          doctest::Approx(0.1 / std::sqrt(0.001) * std::sqrt(w2_of(4001))).epsilon(1e-3));
    CHECK(kick(transport::rotate{unknown_variance::column_mean}, noise) <= 1.5);
  }
}

TEST_CASE("full rank, SGD with momentum: turned moments give the rule itself, kept ones do not") {
  extents const shape{14, 22};
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const run = [&](auto o) {
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    for (index_t k = 0; k < 9; ++k)
      o.step(exec, state, w.view(), read(gradient_of_step(shape, k)),
             step_options{.learning_rate = 0.01F, .weight_decay = 0.1F});
    return w;
  };
  matrix<float> shown{14, 14};
  auto const start = random_matrix(shape, 1);
  auto const whole = run(sgd{});
  auto const turned_moments = run(compose<rule::sgd, basis::given, transport::rotate>{
      .rank = 14, .finder = wandering(14, 14, shown), .refresh = {2}});
  auto const kept =
      run(compose<rule::sgd, basis::given>{.rank = 14, .finder = wandering(14, 14, shown), .refresh = {2}});
  CHECK(relative_deviation(turned_moments, whole, start) <= 2e-6);
  CHECK(relative_deviation(kept, whole, start) >= 0.1);
}

TEST_CASE("a two-sided basis of full rank on both sides, too") {
  extents const shape{12, 12};
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  // `given` shows one basis for both sides.
  matrix<float> shown{12, 12};
  compose<rule::sgd, basis::two_sided<basis::given>, transport::rotate> o{.rank = 12, .refresh = {2}};
  o.finder.finder = wandering(12, 12, shown);
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
  sgd const plain{};
  auto other = plain.init(exec, shape, 1);
  for (index_t k = 0; k < 9; ++k) {
    step_options const options{.learning_rate = 0.01F};
    o.step(exec, state, w.view(), read(gradient_of_step(shape, k)), options);
    plain.step(exec, other, v.view(), read(gradient_of_step(shape, k)), options);
  }
  CHECK(relative_deviation(w, v, random_matrix(shape, 1)) <= 3e-6);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("keep");

TEST_CASE("at another rank the common columns keep their moments, the rest start at zero") {
  for (side const where : {side::left, side::right})
    for (index_t const to : {3, 6, 9}) {
      extents const inner{6, 20}, next{to, 20}, capacity{9, 20};
      transport::keep const keep{};
      host_executor exec{{.threads = 1, .scratch_bytes = keep.workspace_bytes(capacity, 1)}};
      moved_rule<rule::adam> one{exec, {}, where, inner, capacity, 4};
      auto const m = one.moment(0, inner), v = one.moment(1, inner);
      keep.apply(exec, one.rule, one.state, transport_inputs<host_executor>{where, inner, next});
      auto const n = one.moment(0, next), u = one.moment(1, next);
      for (index_t i = 0; i < to; ++i)
        for (index_t j = 0; j < 20; ++j) {
          CHECK(n(i, j) == (i < 6 ? m(i, j) : 0.0));
          CHECK(u(i, j) == (i < 6 ? v(i, j) : 0.0));
        }
      CHECK(*one.state.steps.data() == 4);
    }
}

TEST_CASE("two-sided, the common rows and columns") {
  extents const inner{6, 6}, next{4, 4};
  transport::keep const keep{};
  host_executor exec{{.threads = 1, .scratch_bytes = keep.workspace_bytes(inner, 2)}};
  moved_rule<rule::sgd> one{exec, {}, side::left, inner, inner, 4};
  auto const m = one.moment(0, inner);
  keep.apply(exec, one.rule, one.state, transport_inputs<host_executor>{side::left, inner, next});
  auto const n = one.moment(0, next);
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 4; ++j) CHECK(n(i, j) == m(i, j));
}

TEST_CASE("inside an optimizer whose rank shrinks and grows, moments of what stays stay") {
  extents const shape{20, 30};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  // Columns of the identity, so that direction k is row k of G whatever the rank.
  compose<rule::sgd, basis::given, refresh::energy_rank<>> o{
      .rank = 8, .refresh = {.when = {2}, .energy = 0.9, .least = 1, .multiple = 1}};
  matrix<float> identity{20, 20};
  for (index_t i = 0; i < 20; ++i) identity(i, i) = 1;
  index_t rank = 8;
  o.finder = {{}, [&](index_t, side) { return read(identity).col_range(0, rank); }};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  matrix<double> momentum{20, 30};
  for (index_t k = 0; k < 12; ++k) {
    auto g = gradient_of_step(shape, k);
    // Energy in the first three rows, or in the first six.
    for (index_t i = k < 6 ? 3 : 6; i < 20; ++i)
      for (index_t j = 0; j < 30; ++j) g(i, j) *= 1e-3F;
    rank = k % 2 == 0 ? (k == 0 ? 8 : o.refresh.rank([&] {
      auto heard = state.refresh;
      o.refresh.observe(heard, state.report);
      return heard;
    }()))
                      : rank;
    o.step(exec, state, w.view(), read(g), {});
    CHECK(state.rank == rank);
    for (index_t i = 0; i < 20; ++i)
      for (index_t j = 0; j < 30; ++j)
        momentum(i, j) = i < rank ? 0.9 * momentum(i, j) + static_cast<double>(g(i, j)) : 0.0;
    auto const kept = values_of<float>(state, "rule.moment1");
    for (index_t i = 0; i < rank; ++i)
      for (index_t j = 0; j < 30; ++j)
        CHECK(static_cast<double>(kept[static_cast<std::size_t>(i * 30 + j)]) ==
              doctest::Approx(momentum(i, j)).epsilon(1e-6).scale(10));
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace rotate_test
