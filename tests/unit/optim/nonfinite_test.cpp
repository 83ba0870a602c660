// Bad numbers skip a step; they never reach weights, basis or moments. Compiled once more with -Ofast.
#include <doctest/doctest.h>

#include <limits>

#include "lowrank/lowrank.hpp"
#include "lowrank/optim/schedule.hpp"
#include "support/optimizers.hpp"

namespace nonfinite_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("nonfinite");

constexpr extents shape{24, 40};

float bad_number(int which) {
  constexpr float bad[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity(), 3e20F, std::numeric_limits<float>::max()};
  return bad[which];
}
constexpr int bad_numbers = 5;

/// Bits of everything: comparisons of numbers would be optimised under -ffast-math.
template <class State>
struct snapshot {
  matrix<float> weight;
  state_copy state;

  snapshot(matrix<float> const& w, State const& s) : weight{copy_of(read(w))}, state{saved(s)} {}
  void check_untouched(matrix<float> const& w, State const& s) const {
    CHECK(same_bits(w, weight));
    CHECK(differences(saved(s), state, counts) == "");
  }
};
bool all_finite(matrix<float> const& a) {
  bool good = true;
  for (index_t e = 0; e < a.shape().size(); ++e) good = good && is_finite(a.data()[e]);
  return good;
}
matrix<float> spoiled(index_t k, float bad) {
  auto g = gradient_of_step(shape, k);
  g(5 + k, 7) = bad;
  return g;
}

galore_adamw galore(index_t period) {
  galore_adamw out{.rank = 6};
  out.refresh.period = period;
  return out;
}

/// Step k of `steps` gets a bad gradient; the others are as they would be without it, except that the count of calls moves.
template <class Optimizer>
void check_skips(Optimizer const& optimizer, index_t bad_step, bool retries) {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  for (int which = 0; which < bad_numbers; ++which) {
    CAPTURE(which);
    auto state = optimizer.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    for (index_t k = 0; k < 8; ++k) {
      if (k == bad_step) {
        snapshot const before{w, state};
        CHECK(optimizer.step(exec, state, w.view(), read(spoiled(k, bad_number(which))), {}) ==
              step_status::skipped_bad_gradient);
        before.check_untouched(w, state);
        if constexpr (requires { optimizer.refresh_due(state); }) CHECK(state.calls == k + 1);
        continue;
      }
      CHECK(optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {}) == step_status::stepped);
      if constexpr (requires { state.report; })
        if (k == bad_step + 1) CHECK((state.report.attempted != 0) == retries);
    }
    CHECK(all_finite(w));
    CHECK(values_of<std::int64_t>(state, "rule.steps").at(0) == 7);
  }
}

TEST_CASE("in a gradient at the first step: skipped, and a basis is looked for at the next") {
  check_skips(galore(4), 0, true);
}
TEST_CASE("between refreshes: skipped") { check_skips(galore(4), 2, false); }
TEST_CASE("at a refresh: skipped, the old basis stays, and the next call looks again") {
  check_skips(galore(4), 4, true);
}
TEST_CASE("on whole parameters, whatever the rule") {
  for (index_t const k : {0, 3}) {
    check_skips(adamw{}, k, false);
    check_skips(sgd{}, k, false);
    check_skips(adafactor{.rule = {.beta1 = 0.9, .scaling = rule::parameter_scaling::on}}, k, false);
    check_skips(lion{}, k, false);
  }
}

TEST_CASE("after a skip the trajectory is the one without that step") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  adamw const optimizer{};
  auto a = optimizer.init(exec, shape, 1), b = optimizer.init(exec, shape, 1);
  auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
  for (index_t k = 0; k < 6; ++k) {
    auto const g = gradient_of_step(shape, k);
    if (k == 3) optimizer.step(exec, b, v.view(), read(spoiled(k, bad_number(0))), {});
    optimizer.step(exec, a, w.view(), read(g), {});
    optimizer.step(exec, b, v.view(), read(g), {});
  }
  CHECK(same_bits(w, v));
}

TEST_CASE("in one entry of dY or X of a factored gradient") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const optimizer = galore(4);
  for (int which = 0; which < bad_numbers; ++which)
    for (index_t const bad_step : {0, 2, 4})
      for (bool const in_input : {false, true}) {
        CAPTURE(which);
        CAPTURE(bad_step);
        CAPTURE(in_input);
        auto state = optimizer.init(exec, shape, 1);
        auto w = random_matrix(shape, 1);
        for (index_t k = 0; k < 6; ++k) {
          auto dy = random_matrix({30, shape.rows}, 50 + static_cast<std::uint64_t>(k)),
               x = random_matrix({30, shape.cols}, 80 + static_cast<std::uint64_t>(k));
          snapshot const before{w, state};
          if (k == bad_step) (in_input ? x : dy)(11, 3) = bad_number(which);
          auto const status = optimizer.step(exec, state, w.view(), outer_product<>{read(dy), read(x)}, {});
          CHECK(status == (k == bad_step ? step_status::skipped_bad_gradient : step_status::stepped));
          if (k == bad_step) before.check_untouched(w, state);
        }
        CHECK(all_finite(w));
      }
}

TEST_CASE("in any micro-batch: the whole step is skipped, the next one is clean") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto optimizer = galore(4);
  optimizer.accumulate_in = accumulation::projected;
  for (int which = 0; which < bad_numbers; ++which)
    for (index_t const bad_step : {0, 2, 4})
      for (index_t const bad_part : {0, 1, 2}) {
        CAPTURE(which);
        CAPTURE(bad_step);
        CAPTURE(bad_part);
        auto state = optimizer.init(exec, shape, 1);
        auto w = random_matrix(shape, 1);
        for (index_t k = 0; k < 7; ++k) {
          auto const weight = copy_of(read(w));
          auto const moments = values_of<float>(state, "rule.moment1");
          for (index_t part = 0; part < 3; ++part)
            optimizer.accumulate(exec, state,
                                 read(k == bad_step && part == bad_part ? spoiled(k, bad_number(which))
                                                                        : gradient_of_step(shape, 3 * k + part)));
          auto const status = optimizer.step(exec, state, w.view(), {});
          CHECK(status == (k == bad_step ? step_status::skipped_bad_gradient : step_status::stepped));
          CHECK(same_bits(w, weight) == (k == bad_step));
          if (k == bad_step)
            CHECK(std::memcmp(moments.data(), values_of<float>(state, "rule.moment1").data(), moments.size() * 4) == 0);
        }
        CHECK(all_finite(w));
      }
}

TEST_CASE("16-bit weights keep every bit in a skipped step, stochastic rounding or not") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const optimizer = galore(4);
  adamw const whole{};
  auto state = optimizer.init(exec, shape, 1);
  auto other = whole.init(exec, shape, 1);
  matrix<bf16> w{shape};
  for (index_t e = 0; e < shape.size(); ++e) w.data()[e] = to_bf16(random_matrix(shape, 1).data()[e]);
  matrix<bf16> before{shape};
  for (index_t k = 0; k < 3; ++k) {
    std::memcpy(before.data(), w.data(), static_cast<std::size_t>(w.bytes()));
    CHECK(optimizer.step(exec, state, bf16_weight<>{w.view()}, read(spoiled(k, bad_number(0))), {}) ==
          step_status::skipped_bad_gradient);
    CHECK(whole.step(exec, other, bf16_weight<>{w.view()}, read(spoiled(k, bad_number(1))), {}) ==
          step_status::skipped_bad_gradient);
    CHECK(same_bits(w, before));
    CHECK(optimizer.step(exec, state, bf16_weight<>{w.view()}, read(gradient_of_step(shape, k)), {}) ==
          step_status::stepped);
    CHECK_FALSE(same_bits(w, before));
  }
}

TEST_CASE("large and small gradients are ordinary where their squares can be summed in fp32") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const run = [&](auto const& optimizer, float size, extents small) {
    auto state = optimizer.init(exec, small, 1);
    auto w = random_matrix(small, 1);
    for (index_t k = 0; k < 6; ++k) {
      auto g = gradient_of_step(small, k);
      for (index_t e = 0; e < small.size(); ++e) g.data()[e] *= size;
      CHECK(optimizer.step(exec, state, w.view(), read(g), step_options{.learning_rate = 1e-3F}) ==
            step_status::stepped);
    }
    CHECK(all_finite(w));
    for (auto const& [name, bytes] : saved(state))
      if (name.starts_with("rule.") && name != "rule.steps")
        for (float const x : values_of<float>(state, name)) CHECK(is_finite(x));
  };
  for (float const size : {1e18F, 1e-18F, 1e-30F}) {
    CAPTURE(size);
    run(galore(2), size, {10, 20});
    run(adamw{}, size, {10, 20});
    run(adafactor{}, size, {10, 20});
    run(lion{}, size, {10, 20});
  }
  // 1e18 everywhere in a larger matrix is too much: 960 * 1e36 > FLT_MAX.
  auto state = adamw{}.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  matrix<float> g{shape};
  fill(exec, g.view(), 1e18F);
  CHECK(adamw{}.step(exec, state, w.view(), read(g), {}) == step_status::skipped_bad_gradient);
  // What counts is the gradient times its scale.
  CHECK(adamw{}.step(exec, state, w.view(), read(g), {.grad_scale = 1e-3F}) == step_status::stepped);
}

TEST_CASE(
    "3e19, finite but not its square: skipped where G is read, stepped where what is left of it in the subspace can be "
    "squared") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const optimizer = galore(4);
  for (index_t const bad_step : {0, 1, 2, 3, 4, 5}) {
    auto state = optimizer.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    bool const read_whole = bad_step % 4 == 0;
    for (index_t k = 0; k < 8; ++k) {
      bool everywhere = k == bad_step && bad_step % 2 == 1;
      auto g = k == bad_step ? spoiled(k, 3e19F) : gradient_of_step(shape, k);
      if (everywhere)
        for (index_t e = 0; e < shape.size(); ++e) g.data()[e] *= 3e19F;
      auto const status = optimizer.step(exec, state, w.view(), read(g), {});
      if (k != bad_step) CHECK(status == step_status::stepped);
      else if (read_whole || everywhere) CHECK(status == step_status::skipped_bad_gradient);
    }
    CHECK(all_finite(w));
    for (std::string const name : {"rule.moment1", "rule.moment2"})
      for (float const x : values_of<float>(state, name)) CHECK(is_finite(x));
  }
  auto state = adamw{}.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  CHECK(adamw{}.step(exec, state, w.view(), read(spoiled(0, 3e19F)), {}) == step_status::skipped_bad_gradient);
}

TEST_CASE("a zero gradient: first, at a refresh, in between; momentum goes on") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto const optimizer = galore(4);
  matrix<float> const zero{shape};
  auto state = optimizer.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const start = copy_of(read(w));
  // First: a basis of columns of the identity, nothing moves.
  CHECK(optimizer.step(exec, state, w.view(), read(zero), {}) == step_status::stepped);
  CHECK(same_bits(w, start));
  auto const basis = values_of<float>(state, "basis.values");
  for (index_t i = 0; i < 24; ++i)
    for (index_t c = 0; c < 6; ++c) CHECK(basis[static_cast<std::size_t>(i * 6 + c)] == (i == c ? 1.0F : 0.0F));
  CHECK(optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, 1)), {}) == step_status::stepped);
  // In between: Adam's momentum moves the weight on.
  auto const between = copy_of(read(w));
  CHECK(optimizer.step(exec, state, w.view(), read(zero), {}) == step_status::stepped);
  CHECK(largest_difference(read(w), read(between)) > 1e-4);
  optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, 3)), {});
  // At a refresh: the basis is kept, momentum goes on, and the next call is no refresh.
  CHECK(optimizer.refresh_due(state));
  auto const kept = values_of<float>(state, "basis.values");
  auto const refreshing = copy_of(read(w));
  CHECK(optimizer.step(exec, state, w.view(), read(zero), {}) == step_status::stepped_old_basis);
  CHECK(values_of<float>(state, "basis.values") == kept);
  CHECK(largest_difference(read(w), read(refreshing)) > 1e-4);
  CHECK(optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, 5)), {}) == step_status::stepped);
  CHECK(state.report.attempted == 0);
  CHECK(values_of<float>(state, "basis.values") == kept);
  CHECK(values_of<std::int64_t>(state, "rule.steps").at(0) == 6);
}

TEST_CASE("a zero gradient does not reset moments that a new basis would") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  compose<rule::adam, basis::randomized, transport::reset> optimizer{.rank = 6};
  optimizer.refresh.period = 2;
  matrix<float> const zero{shape};
  auto state = optimizer.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const steps = [&] { return values_of<std::int64_t>(state, "rule.steps").at(0); };
  for (index_t k = 0; k < 2; ++k) optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
  CHECK(steps() == 2);
  optimizer.step(exec, state, w.view(), read(zero), {});
  CHECK(steps() == 3);
  optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, 3)), {});
  optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, 4)), {});
  CHECK(steps() == 1);
}

/// Finds the identity, unless told to fail in some way.
struct moody : basis::one_sided {
  enum class mood { good, fails, writes_nan, writes_infinity };
  mood const* now{};

  [[nodiscard]] index_t workspace_bytes(extents, index_t, index_t) const { return 0; }
  template <executor E, gradient G>
  void find(E& exec, finder_inputs<E, G> const&, view_of<E> p, std::int32_t* failed) const {
    fill_identity(exec, p);
    if (*now == mood::fails) *failed = 1;
    if (*now == mood::writes_nan) p(2, 1) = bad_number(0);
    if (*now == mood::writes_infinity) p(2, 1) = bad_number(1);
  }
};

TEST_CASE("a finder that fails, or writes NaN: no step without a basis, the old basis where there is one") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  for (auto const bad : {moody::mood::fails, moody::mood::writes_nan, moody::mood::writes_infinity}) {
    auto mood = bad;
    compose<rule::adam, moody, transport::reset> optimizer{.rank = 6};
    optimizer.finder.now = &mood;
    optimizer.refresh.period = 3;
    auto state = optimizer.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    auto const step = [&](index_t k) {
      return optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
    };
    for (index_t k = 0; k < 2; ++k) {
      snapshot const before{w, state};
      CHECK(step(k) == step_status::skipped_no_basis);
      before.check_untouched(w, state);
    }
    mood = moody::mood::good;
    CHECK(step(2) == step_status::stepped);  // asked at once, not only when the period ends
    CHECK(step(3) == step_status::stepped);
    auto const basis = values_of<float>(state, "basis.values");
    mood = bad;
    for (index_t k = 4; k < 6; ++k) CHECK(step(k) == step_status::stepped);
    CHECK(step(6) == step_status::stepped_old_basis);
    CHECK(values_of<float>(state, "basis.values") == basis);
    CHECK(values_of<std::int64_t>(state, "rule.steps").at(0) == 4);  // no reset at call 6
    CHECK(step(7) == step_status::stepped);                          // not asked again before the next period
    CHECK(all_finite(w));
  }
}

TEST_CASE("a given basis that is not there: retried at each call until there is one, then the old one stays") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  for (bool const both : {false, true}) {
    auto const identity = identity_basis(24).source, wide = identity_basis(40).source;
    index_t there = 2, asked = 0;
    basis::given const source{
        {}, [&](index_t call, side where) -> matrix_view<float const> {
          ++asked;
          if (call < there || call == 6 || (both && where == side::right && call == 3)) return {};
          return where == side::left ? identity(call, where).sub({0, 24, 0, 6}) : wide(call, where).sub({0, 40, 0, 6});
        }};
    auto const run = [&](auto optimizer) {
      optimizer.refresh.period = 3;
      auto state = optimizer.init(exec, shape, 1);
      auto w = random_matrix(shape, 1);
      for (index_t k = 0; k < 8; ++k) {
        snapshot const before{w, state};
        auto const status = optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
        CAPTURE(k);
        if (k < 2) before.check_untouched(w, state);
        CHECK(status == (k < 2                        ? step_status::skipped_no_basis
                         : k == 6 || (both && k == 3) ? step_status::stepped_old_basis
                                                      : step_status::stepped));
      }
    };
    if (both) run(low_rank<rule::sgd, basis::two_sided<basis::given>>{.rank = 6, .finder = {source}});
    else run(low_rank<rule::sgd, basis::given>{.rank = 6, .keep_side = side_choice::left, .finder = source});
    CHECK(asked > 0);
  }
}

TEST_CASE("hyper-parameters and options that are not numbers are refused by their bits") {
  float const nan = bad_number(0), infinity = bad_number(1);
  for (double const bad : {static_cast<double>(nan), static_cast<double>(infinity)}) {
    CAPTURE(bad);
    CHECK_THROWS_AS((adamw{.rule = {{.beta1 = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((adamw{.rule = {{.beta2 = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((adamw{.rule = {{.epsilon = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((sgd{.rule = {{.momentum = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((sgd{.rule = {{.dampening = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((lion{.rule = {{.beta2 = bad}}}.check()), argument_error);
    CHECK_THROWS_AS((adafactor{.rule = {.epsilon1 = bad}}.check()), argument_error);
    CHECK_THROWS_AS((adafactor{.rule = {.epsilon2 = bad}}.check()), argument_error);
    CHECK_THROWS_AS((adafactor{.rule = {.clip_threshold = bad}}.check()), argument_error);
    CHECK_THROWS_AS((adafactor{.rule = {.decay_rate = -bad}}.check()), argument_error);
    CHECK_THROWS_AS((adafactor{.rule = {.beta1 = bad}}.check()), argument_error);
    CHECK_THROWS_AS((schedule::warmup_cosine{.floor = bad}.check()), argument_error);
    galore_adamw scaled{};
    scaled.lift.scale = static_cast<float>(bad);
    CHECK_THROWS_AS(scaled.check(), argument_error);
  }
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  auto const optimizer = galore(3);
  auto state = optimizer.init(exec, shape, 1);
  auto other = adamw{}.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  snapshot const before{w, state};
  auto const g = gradient_of_step(shape, 0);
  for (float const bad : {nan, infinity, -infinity})
    for (step_options const& o :
         {step_options{.learning_rate = bad}, step_options{.weight_decay = bad}, step_options{.grad_scale = bad}}) {
      CHECK_THROWS_AS(optimizer.step(exec, state, w.view(), read(g), o), argument_error);
      CHECK_THROWS_AS(adamw{}.step(exec, other, w.view(), read(g), o), argument_error);
    }
  before.check_untouched(w, state);
  CHECK(state.calls == 0);
}

TEST_SUITE_END();

}  // namespace

}  // namespace nonfinite_test
