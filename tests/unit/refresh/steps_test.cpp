// Refresh policies at work: what the steps of an optimizer tell them, and when they hear of it.
#include <doctest/doctest.h>

#include "lowrank/optim/compose.hpp"
#include "lowrank/refresh/budget.hpp"
#include "lowrank/refresh/captured_energy.hpp"
#include "lowrank/refresh/energy_rank.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/refresh/staggered.hpp"
#include "support/blind_executor.hpp"
#include "support/compositions.hpp"

namespace steps_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("refresh in steps");

template <class Format>
constexpr double unit = 1e-6;
template <>
constexpr double unit<format::bf16> = 0x1p-6;

template <class Finder, class Format>
struct kind {
  using finder = Finder;
  using format = Format;
  static constexpr bool two_sided = Finder::template map<host_space>::two_sided;
};
using both = basis::two_sided<basis::randomized>;
#define LOWRANK_TEST_BASES                                                                                \
  kind<basis::randomized, format::fp32>, kind<basis::randomized, format::bf16>, kind<both, format::fp32>, \
      kind<both, format::bf16>

/// ‖AᵀB‖² / r.
double overlap_of(matrix<float> const& a, matrix<float> const& b) {
  return squared_norm_of(plain_product(a.view().t(), b.view()).view()) / static_cast<double>(b.shape().cols);
}

TEST_CASE_TEMPLATE("overlap and first cosine are those of the bases, before and after", Kind, LOWRANK_TEST_BASES) {
  using optimizer = compose<rule::sgd, typename Kind::finder, refresh::lazy_overlap, typename Kind::format>;
  for (extents const shape : {extents{20, 30}, extents{30, 20}}) {
    host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
    optimizer const o{.rank = 5, .refresh = {.gap = 2}};
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    auto const common = with_spectrum(shape, power_law(20, 0.7), 4);
    std::vector<matrix<float>> before;
    for (index_t k = 0; k < 7; ++k) {
      o.step(exec, state, w.view(), read(noisy_gradient(common, 0.05F, k)), {});
      CHECK((state.report.attempted != 0) == (k % 2 == 0));
      if (k % 2 != 0) continue;
      auto now = bases_of(o, exec, state);
      if (k == 0) {
        CHECK(state.report.overlap == -1);
        CHECK(state.report.first_cosine == -2);
      } else {
        // Of two bases, the left one speaks for both.
        CHECK(std::abs(state.report.overlap - overlap_of(before[0], now[0])) <= unit<typename Kind::format>);
        double cosine = 0;
        for (index_t i = 0; i < now[0].shape().rows; ++i)
          cosine += static_cast<double>(now[0](i, 0)) * static_cast<double>(before[0](i, 0));
        CHECK(std::abs(state.report.first_cosine - cosine) <= unit<typename Kind::format>);
        CHECK(state.report.overlap > 0.3);
        CHECK(state.report.overlap <= 1.01);
      }
      before = std::move(now);
    }
  }
}

TEST_CASE_TEMPLATE("captured is ‖PᵀG‖² / ‖G‖², at every step, in fp64", Kind, LOWRANK_TEST_BASES) {
  using optimizer = compose<rule::sgd, typename Kind::finder, refresh::captured_energy, typename Kind::format>;
  for (extents const shape : {extents{20, 30}, extents{30, 20}})
    for (index_t const tokens : {0, 3, 70}) {
      CAPTURE(shape);
      CAPTURE(tokens);
      host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
      optimizer const o{.rank = 5, .refresh = {.settle = 1, .longest = 3}};
      auto state = o.init(exec, shape, 1);
      auto w = random_matrix(shape, 1);
      for (index_t k = 0; k < 8; ++k) {
        step_options const options{.grad_scale = k == 4 ? 0.0F : 0.25F};
        matrix<float> g = gradient_of_step(shape, k);
        if (tokens == 0) {
          o.step(exec, state, w.view(), read(g), options);
        } else {
          auto const dy = gradient_of_step({tokens, shape.rows}, k), x = gradient_of_step({tokens, shape.cols}, 50 + k);
          auto const product = plain_product(read(dy).t(), read(x));
          for (index_t e = 0; e < shape.size(); ++e) g.data()[e] = static_cast<float>(product.data()[e]);
          o.step(exec, state, w.view(), outer_product<>{read(dy), read(x)}, options);
        }
        // The basis as it is kept is what the step projects with.
        double const share = captured_share(bases_of(o, exec, state), state, g);
        if (k == 4) CHECK(state.captured == -1);
        else CHECK(state.captured == doctest::Approx(share).epsilon(1e-6));
        CHECK(state.report.captured == state.captured);
        if (k != 4) CHECK(state.report.call == k);
      }
    }
}

TEST_CASE("under accumulation it is the first micro-batch that is looked at") {
  extents const shape{20, 30};
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::randomized, refresh::captured_energy> const o{
      .rank = 5, .accumulate_in = accumulation::projected, .refresh = {.settle = 1, .longest = 4}};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 9; ++k) {
    for (index_t part = 0; part < 3; ++part) o.accumulate(exec, state, read(gradient_of_step(shape, 3 * k + part)));
    o.step(exec, state, w.view(), step_options{.grad_scale = 1.0F / 3});
    double const share = captured_share(bases_of(o, exec, state), state, gradient_of_step(shape, 3 * k));
    CHECK(state.captured == doctest::Approx(share).epsilon(1e-6));
    CHECK(state.report.captured == state.captured);
    CHECK(state.report.call == k);
    CHECK((state.report.attempted != 0) == (k % 4 == 0));
  }
}

TEST_CASE("a policy hears of a call at the next one") {
  extents const shape{20, 30};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::stiefel, refresh::lazy_overlap> const lazy{
      .rank = 5, .refresh = {.gap = 2, .threshold = 0, .history = 1}};
  auto state = lazy.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const step = [&](auto const& o, auto& s, index_t k) {
    o.step(exec, s, w.view(), read(gradient_of_step(shape, k)), {});
  };
  for (index_t k = 0; k < 3; ++k) step(lazy, state, k);
  // Call 2 has found a basis and compared it: the gap is still what it was.
  CHECK(state.report.overlap > 0);
  CHECK(state.refresh.gap == 2);
  CHECK(state.refresh.seen == 0);
  step(lazy, state, 3);
  CHECK(state.refresh.gap == 4);
  CHECK(state.refresh.seen == 1);
  compose<rule::sgd, basis::stiefel, refresh::captured_energy> const energy{.rank = 5};
  auto other = energy.init(exec, shape, 1);
  for (index_t k = 0; k < 4; ++k) {
    step(energy, other, k);
    CHECK(other.refresh.seen == std::max<index_t>(k - 1, 0));
  }
}

/// Bases that span the same at every call: the columns of `p`, with other signs, or turned.
basis::given restless(matrix<float> const& p, bool turn, matrix<float>& shown) {
  return {{}, [&p, turn, &shown](index_t call, side) {
            for (index_t i = 0; i < p.shape().rows; ++i)
              for (index_t k = 0; k < p.shape().cols; ++k) {
                index_t const next = (k + 1) % p.shape().cols;
                float const angle = 0.7F * static_cast<float>(call);
                // Pairs of columns turn in their plane; an odd one out stays.
                bool const first = k % 2 == 0 && next > k;
                float const mate = first ? p(i, next) : k % 2 == 1 ? p(i, k - 1) : 0.0F;
                float const turned = first        ? std::cos(angle) * p(i, k) + std::sin(angle) * mate
                                     : k % 2 == 1 ? std::cos(angle) * p(i, k) - std::sin(angle) * mate
                                                  : p(i, k);
                float const flipped = call / 2 % 2 == 0 ? p(i, k) : -p(i, k);
                shown(i, k) = turn ? turned : flipped;
              }
            return read(shown);
          }};
}

TEST_CASE("neither signs nor rotations hide a subspace that stands still, only from the first vectors") {
  extents const shape{20, 30};
  auto const columns = orthonormal_columns(20, 4, 3);
  matrix<float> p{20, 4}, shown{20, 4};
  for (index_t i = 0; i < 20; ++i)
    for (index_t k = 0; k < 4; ++k) p(i, k) = static_cast<float>(columns(k, i));
  for (bool const turn : {false, true})
    for (auto const of : {refresh::likeness::subspace, refresh::likeness::first_vectors}) {
      host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
      compose<rule::sgd, basis::given, refresh::lazy_overlap> o{.rank = 4, .refresh = {.gap = 2, .of = of}};
      o.finder = restless(p, turn, shown);
      auto state = o.init(exec, shape, 1);
      auto w = random_matrix(shape, 1);
      for (index_t k = 0; k < 24; ++k) {
        o.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
        if (state.report.attempted != 0 && k > 0) CHECK(state.report.overlap == doctest::Approx(1).epsilon(1e-6));
      }
      CHECK((state.refresh.gap > 2) == (of == refresh::likeness::subspace));
    }
}

TEST_CASE("lazy: with a subspace that stands still, call 5 gaps is the last at the first gap") {
  extents const shape{20, 30};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::randomized, refresh::lazy_overlap> const o{.rank = 4, .refresh = {.gap = 3}};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const common = with_spectrum(shape, {4, 3, 2, 1}, 4);
  std::vector<index_t> when;
  for (index_t k = 0; k < 60; ++k) {
    if (o.refresh_due(state)) when.push_back(k);
    o.step(exec, state, w.view(), read(noisy_gradient(common, 0.01F, k)), {});
  }
  CHECK(when == std::vector<index_t>{0, 3, 6, 9, 12, 15, 18, 24, 48});
}

TEST_CASE("captured energy: silent while the gradient keeps its subspace, awake soon after it leaves") {
  extents const shape{40, 60};
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::randomized, refresh::captured_energy> const o{.rank = 6};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const one = with_spectrum(shape, geometric(6, 3), 4), other = with_spectrum(shape, geometric(6, 3), 40);
  std::vector<index_t> when;
  double fitted = 0, next = 0;
  for (index_t k = 0; k < 60; ++k) {
    o.step(exec, state, w.view(), read(noisy_gradient(k < 30 ? one : other, 0.05F, k)), {});
    if (state.report.attempted != 0) when.push_back(k);
    (k == 0 ? fitted : next) = state.captured;
    if (k == 1) CHECK(next < 0.85 * fitted);  // a drop that a yardstick on the fitted gradient would take for a loss
  }
  REQUIRE(when.size() == 2);
  CHECK(when[1] > 30);
  CHECK(when[1] <= 33);
}

/// Columns of R that reach the share, counted from outside.
index_t columns_for(matrix<float> const& p, matrix<float> const& g, double share) {
  auto const r = plain_product(p.view().t(), g.view());
  std::vector<double> energies;
  for (index_t k = 0; k < r.shape().rows; ++k) energies.push_back(squared_norm_of(r.view().row_range(k, k + 1)));
  std::sort(energies.rbegin(), energies.rend());
  double sum = 0;
  for (std::size_t k = 0; k < energies.size(); ++k)
    if ((sum += energies[k]) >= share * squared_norm_of(g.view())) return static_cast<index_t>(k) + 1;
  return 0;
}

TEST_CASE("energy rank: as many columns as the last refresh needed, shrinking and growing") {
  extents const shape{40, 60};
  host_executor exec{{.threads = 2}};
  compose<rule::adam, basis::randomized, refresh::energy_rank<>> const o{
      .rank = 32, .refresh = {.when = {2}, .energy = 0.95, .least = 3, .multiple = 2}};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  exec.reserve(o.workspace_bytes(fp32_weight<>{w.view()}));
  auto const steep = with_spectrum(shape, geometric(5, 2), 4),
             flat = with_spectrum(shape, std::vector<double>(40, 1.0), 5);
  index_t const bytes = state_bytes(state);
  index_t expected = 32;
  std::vector<index_t> ranks;
  for (index_t k = 0; k < 20; ++k) {
    auto const g = noisy_gradient(k < 8 ? steep : flat, 1e-3F, k);
    CHECK(o.step(exec, state, w.view(), read(g), {}) == step_status::stepped);
    for (index_t e = 0; e < shape.size(); ++e) REQUIRE(is_finite(w.data()[e]));
    if (k % 2 != 0) continue;
    REQUIRE(state.rank == expected);
    ranks.push_back(state.rank);
    index_t const needed = columns_for(bases_of(o, exec, state).at(0), g, 0.95);
    CHECK(state.report.needed_rank == needed);
    CHECK(state.report.rank == expected);
    index_t const wanted = needed > 0 ? needed : expected + std::max<index_t>(2, expected / 2);
    expected = std::min<index_t>((std::max<index_t>(wanted, 3) + 1) / 2 * 2, 32);
  }
  CHECK(ranks == std::vector<index_t>{32, 6, 6, 6, 6, 10, 16, 24, 32, 32});
  CHECK(state_bytes(state) == bytes);
  CHECK(exec.arena().peak() <= exec.arena().reserved());
}

TEST_CASE("energy rank: the strongest columns count first, wherever they stand") {
  extents const shape{40, 60};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::stiefel, refresh::energy_rank<>> o{.rank = 24,
                                                               .refresh = {.when = {1}, .least = 24, .multiple = 1}};
  auto w = random_matrix(shape, 1);
  for (double const share : {0.2, 0.4, 0.5, 0.7}) {
    o.refresh.energy = share;
    auto state = o.init(exec, shape, 1);
    for (index_t k = 0; k < 4; ++k) {
      auto const g = noisy_gradient(with_spectrum(shape, geometric(10, 100), 4), 0.02F, k);
      o.step(exec, state, w.view(), read(g), {});
      CHECK(state.report.needed_rank == columns_for(bases_of(o, exec, state).at(0), g, share));
    }
  }
}

TEST_CASE("staggered: the first basis at call 0, then each tensor in its turn") {
  extents const shape{12, 20};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::stiefel, refresh::staggered> const o{.rank = 4, .refresh = {10}};
  std::vector<index_t> at_once(30);
  for (std::uint32_t tensor = 0; tensor < 10; ++tensor) {
    auto state = o.init(exec, shape, tensor);
    auto w = random_matrix(shape, 1);
    for (index_t k = 0; k < 30; ++k) {
      bool const due = o.refresh_due(state);
      CHECK(due == (k == 0 || (k + refresh::phase_of(tensor, 10)) % 10 == 0));
      at_once[static_cast<std::size_t>(k)] += due ? 1 : 0;
      o.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
    }
  }
  CHECK(at_once[0] == 10);
  for (std::size_t k = 1; k < 30; ++k) CHECK(at_once[k] <= 2);
}

TEST_CASE("budget: the flops of the refreshes that happen stay within the share of the steps") {
  for (extents const shape : {extents{40, 60}, extents{60, 40}})
    for (bool const factored : {false, true})
      for (double const share : {0.05, 0.2}) {
        host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
        index_t const tokens = 64;
        using form = refresh::budget::gradient_form;
        compose<rule::sgd, basis::randomized, refresh::budget> const o{
            .rank = 8,
            .refresh = {.share = share, .tokens = tokens, .gradient = factored ? form::factored : form::dense}};
        auto state = o.init(exec, shape, 3);
        auto w = random_matrix(shape, 1);
        auto const dy = gradient_of_step({tokens, shape.rows}, 1), x = gradient_of_step({tokens, shape.cols}, 2);
        auto const g = gradient_of_step(shape, 3);
        double refreshes = 0, steps = 0;
        // Whole periods, and the first basis is not the policy's choice.
        for (index_t k = 0; k < 1000 / state.refresh.period * state.refresh.period; ++k) {
          if (factored) o.step(exec, state, w.view(), outer_product<>{read(dy), read(x)}, {});
          else o.step(exec, state, w.view(), read(g), {});
          steps += (factored ? 4.0 : 6.0) * static_cast<double>(tokens * shape.size());
          if (state.report.attempted != 0 && k > 0)
            refreshes += o.finder.flops(facing(state.facing_side, shape), 8, factored ? tokens : 0);
        }
        CHECK(refreshes <= share * steps);
        CHECK(refreshes >= 0.8 * share * steps);
      }
}

TEST_CASE("where the host cannot look, what is not measured is not acted upon") {
  extents const shape{20, 30};
  blind_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::stiefel, refresh::lazy_overlap> const lazy{
      .rank = 5, .refresh = {.gap = 2, .threshold = 0, .history = 1}};
  compose<rule::sgd, basis::stiefel, refresh::captured_energy> const energy{.rank = 5, .refresh = {.longest = 6}};
  auto a = lazy.init(exec, shape, 1);
  auto b = energy.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 13; ++k) {
    auto const g = gradient_of_step(shape, k);
    lazy.step(exec, a, w.view(), read(g), {});
    energy.step(exec, b, w.view(), read(g), {});
    CHECK((a.report.attempted != 0) == (k % 2 == 0));
    CHECK((b.report.attempted != 0) == (k % 6 == 0));
    CHECK(b.captured == -1);
  }
  CHECK(a.refresh.gap == 2);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("nonfinite");

TEST_CASE("bad numbers leave a policy as it was, and it goes on from there") {
  extents const shape{20, 30};
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  for (auto const accumulate_in : {accumulation::none, accumulation::projected})
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e30F}) {
      compose<rule::sgd, basis::randomized, refresh::captured_energy> const o{
          .rank = 5, .accumulate_in = accumulate_in, .refresh = {.settle = 3, .longest = 12}};
      auto state = o.init(exec, shape, 1);
      auto w = random_matrix(shape, 1);
      auto const step = [&](matrix<float> const& g) {
        if (accumulate_in == accumulation::none) return o.step(exec, state, w.view(), read(g), {});
        o.accumulate(exec, state, read(g));
        o.accumulate(exec, state, read(g));
        return o.step(exec, state, w.view(), {});
      };
      for (index_t k = 0; k < 14; ++k) {
        auto g = gradient_of_step(shape, k);
        bool const spoiled = k == 2 || k == 5 || k == 12;
        if (spoiled) g(3, 4) = bad;
        CHECK(step(g) == (spoiled ? step_status::skipped_bad_gradient : step_status::stepped));
        CHECK(is_finite(state.refresh.level));
        CHECK(is_finite(state.refresh.yardstick));
      }
      // Call 12 was due and bad, so 13 tried again.
      CHECK(state.report.call == 13);
      CHECK(state.report.accepted == 1);
      CHECK(state.refresh.yardstick >= 0);
      CHECK(state.refresh.yardstick <= 1);
    }
}

TEST_SUITE_END();

}  // namespace

}  // namespace steps_test
