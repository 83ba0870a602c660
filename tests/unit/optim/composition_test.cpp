// The composition itself: what its slots do, at the edges of what shapes there are.
#include <doctest/doctest.h>

#include "lowrank/lowrank.hpp"
#include "lowrank/optim/schedule.hpp"
#include "support/optimizers.hpp"

namespace composition_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("composition");

static_assert(std::same_as<compose<rule::sgd, basis::stiefel>, low_rank<rule::sgd, basis::stiefel>>);
static_assert(std::same_as<compose<rule::sgd, basis::stiefel, format::bf16, transport::reset, lift::nothing,
                                   residual::drop, refresh::every>,
                           low_rank<rule::sgd, basis::stiefel, refresh::every, transport::reset, residual::drop,
                                    lift::nothing, format::bf16>>);
static_assert(std::same_as<compose<rule::sgd, basis::stiefel, lift::nothing, format::bf16>,
                           compose<rule::sgd, basis::stiefel, format::bf16, lift::nothing>>);

using plain_galore = low_rank<rule::sgd, basis::stiefel>;
using both_galore = low_rank<rule::adam, basis::two_sided<basis::randomized>>;

TEST_CASE_TEMPLATE("edge shapes, ranks and sides: a step moves every weight there is and stays finite", Optimizer,
                   galore_adamw, galore_adafactor, both_galore) {
  host_executor exec{{.threads = 2}};
  for (extents const shape : {extents{1, 1}, extents{1, 13}, extents{13, 1}, extents{2, 3}, extents{17, 17},
                              extents{5, 260}, extents{260, 5}})
    for (index_t const rank : {index_t{1}, index_t{4}, index_t{5}, index_t{1000}})
      for (side_choice const keep :
           {side_choice::keep_large, side_choice::keep_small, side_choice::left, side_choice::right}) {
        CAPTURE(shape);
        CAPTURE(rank);
        CAPTURE(static_cast<int>(keep));
        Optimizer o{.rank = rank, .keep_side = keep};
        o.refresh.period = 2;
        auto state = o.init(exec, shape, 1);
        CHECK(state.rank == std::min({rank, shape.rows, shape.cols}));
        auto w = random_matrix(shape, 1);
        auto const start = copy_of(read(w));
        exec.reserve(
            std::max(o.workspace_bytes(fp32_weight<>{w.view()}), o.workspace_bytes(fp32_weight<>{w.view()}, 3)));
        for (index_t k = 0; k < 3; ++k) {
          CHECK(o.step(exec, state, w.view(), read(gradient_of_step(shape, k)), step_options{.learning_rate = 0.1F}) ==
                step_status::stepped);
          auto const dy = random_matrix({3, shape.rows}, 4), x = random_matrix({3, shape.cols}, 5);
          CHECK(o.step(exec, state, w.view(), outer_product<>{read(dy), read(x)},
                       step_options{.learning_rate = 0.1F}) == step_status::stepped);
        }
        for (index_t e = 0; e < shape.size(); ++e) REQUIRE(is_finite(w.data()[e]));
        CHECK(largest_difference(read(w), read(start)) > 1e-3);
      }
}

TEST_CASE_TEMPLATE("empty weights are stepped without a complaint", Optimizer, galore_adamw, adamw, both_galore) {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 16}};
  for (extents const shape : {extents{0, 0}, extents{0, 5}, extents{5, 0}}) {
    Optimizer const o{};
    auto state = o.init(exec, shape, 1);
    matrix<float> w{shape}, g{shape};
    for (int k = 0; k < 3; ++k) CHECK(o.step(exec, state, w.view(), read(g), {}) == step_status::stepped);
    CHECK(state.calls == 3);
    matrix<bf16> narrow{shape};
    CHECK(o.step(exec, state, bf16_weight<>{narrow.view()}, read(g), {}) == step_status::stepped);
  }
}

TEST_CASE("no tokens are a zero gradient") {
  host_executor exec{{.threads = 1}};
  galore_adamw o{.rank = 4, .measure = certificate::every_step};
  extents const shape{12, 20};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  exec.reserve(o.workspace_bytes(fp32_weight<>{w.view()}, 0));
  matrix<float> const dy{0, 12}, x{0, 20};
  CHECK(o.step(exec, state, w.view(), outer_product<>{read(dy), read(x)}, {}) == step_status::stepped);
  CHECK(same_bits(w, random_matrix(shape, 1)));
  CHECK(state.captured == -1);
}

TEST_CASE("a gradient in memory that may change, or that may not") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  extents const shape{8, 12};
  auto g = gradient_of_step(shape, 0);
  auto const step = [&](auto const& o, auto view) {
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    o.step(exec, state, w.view(), view, {});
    return w;
  };
  CHECK(same_bits(step(adamw{}, g.view()), step(adamw{}, read(g))));
  CHECK(same_bits(step(plain_galore{.rank = 3}, g.view()), step(plain_galore{.rank = 3}, read(g))));
}

TEST_CASE("lift::nothing: moments are followed, the weight only decays") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 16}};
  extents const shape{8, 12};
  compose<rule::adam, basis::stiefel, lift::nothing> const o{.rank = 3};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const start = copy_of(read(w));
  o.step(exec, state, w.view(), read(gradient_of_step(shape, 0)), step_options{.learning_rate = 0.5F});
  CHECK(same_bits(w, start));
  o.step(exec, state, w.view(), read(gradient_of_step(shape, 1)),
         step_options{.learning_rate = 0.5F, .weight_decay = 0.5F});
  for (index_t e = 0; e < shape.size(); ++e) CHECK(w.data()[e] == 0.75F * start.data()[e]);
  CHECK(values_of<float>(state, "rule.moment1").at(0) != 0);
}

/// An fp32 weight that insists on being worked on in panels of three rows.
struct paged_weight {
  static constexpr bool panels = true;
  matrix_view<float> values;

  [[nodiscard]] extents shape() const noexcept { return values.shape(); }
  [[nodiscard]] index_t row_quantum() const noexcept { return 3; }
  [[nodiscard]] view_of<host_executor> open(host_executor& exec, index_t begin, index_t end) const {
    CHECK(begin % 3 == 0);
    auto const panel = take_matrix(exec, {end - begin, values.cols});
    copy(exec, matrix_view<float const>(values.row_range(begin, end)), panel);
    return panel;
  }
  void close(host_executor& exec, index_t begin, index_t end, view_of<host_executor> panel, rng_key,
             step_record const*) const {
    copy(exec, matrix_view<float const>(panel), values.row_range(begin, end));
  }
};
static_assert(weight_view<paged_weight, host_executor>);

TEST_CASE("a weight format of the user's own, in panels, does what the weight in place does") {
  for (side_choice const keep : {side_choice::left, side_choice::right})
    for (decay_order const order : {decay_order::before, decay_order::after}) {
      extents const shape{290, 21};
      low_rank<rule::adafactor, basis::stiefel> o{.rank = 5, .keep_side = keep};
      o.rule.decay = order;
      o.rule.scaling = rule::parameter_scaling::on;
      host_executor exec{{.threads = 2, .scratch_bytes = 1 << 18}};
      auto a = o.init(exec, shape, 1), b = o.init(exec, shape, 1);
      auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
      for (index_t k = 0; k < 4; ++k) {
        auto const g = gradient_of_step(shape, k);
        step_options const options{.learning_rate = 0.1F, .weight_decay = 0.1F};
        o.step(exec, a, w.view(), read(g), options);
        o.step(exec, b, paged_weight{v.view()}, read(g), options);
      }
      CHECK(relative_deviation(v, w, random_matrix(shape, 1)) < 1e-5);
    }
}

TEST_CASE("a refresh is due at multiples of the period, counted in calls; the first always is") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 18}};
  extents const shape{8, 12};
  plain_galore o{.rank = 3};
  o.refresh.period = 3;
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  std::vector<float> last;
  for (index_t k = 0; k < 10; ++k) {
    CHECK(o.refresh_due(state) == (k % 3 == 0));
    o.step(exec, state, w.view(), read(gradient_of_step(shape, k)), {});
    auto const now = values_of<float>(state, "basis.values");
    CHECK((now != last) == (k % 3 == 0));
    last = now;
    CHECK(state.report.call == k / 3 * 3);
  }
}

TEST_CASE("keep reads old moments in the new basis, reset starts them and the count of steps again") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 18}};
  extents const shape{8, 12};
  auto const g = gradient_of_step(shape, 0);
  auto const run = [&](auto o) {
    o.rank = 8;
    o.refresh.period = 2;
    o.rule.momentum = 0.5;
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    for (int k = 0; k < 3; ++k) o.step(exec, state, w.view(), read(g), {});
    return std::pair{values_of<std::int64_t>(state, "rule.steps").at(0), values_of<float>(state, "rule.moment1")};
  };
  auto const [kept_steps, kept] = run(low_rank<rule::sgd, basis::given>{.finder = identity_basis(8)});
  auto const [reset_steps, reset] =
      run(compose<rule::sgd, basis::given, transport::reset>{.finder = identity_basis(8)});
  CHECK(kept_steps == 3);
  CHECK(reset_steps == 1);
  for (index_t e = 0; e < shape.size(); ++e) {
    CHECK(kept[static_cast<std::size_t>(e)] == doctest::Approx(1.75 * static_cast<double>(g.data()[e])));
    CHECK(reset[static_cast<std::size_t>(e)] == g.data()[e]);
  }
}

TEST_CASE(
    "the certificate: the share of the scaled gradient's energy in the subspace, at refreshes or when asked for") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 18}};
  extents const shape{8, 12};
  auto const g = gradient_of_step(shape, 0);
  for (certificate const when : {certificate::never, certificate::at_refresh, certificate::every_step}) {
    galore_adamw o{.rank = 3, .measure = when};
    o.refresh.period = 2;
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    for (index_t k = 0; k < 4; ++k) {
      o.step(exec, state, w.view(), read(g), step_options{.grad_scale = k == 3 ? 0.0F : 0.3F});
      // The guard of a refresh sums the squares of a dense gradient anyway.
      bool const measured = when == certificate::every_step || k % 2 == 0;
      if (!measured || k == 3) {
        CHECK(state.captured == -1);
        continue;
      }
      auto const p = values_of<float>(state, "basis.values");
      double const share = captured_energy(row_major(p.data(), {8, 3}), read(g)) / squared_norm_of(read(g));
      CHECK(state.captured == doctest::Approx(share).epsilon(1e-5));
    }
  }
}

TEST_CASE("the settings of galore_torch") {
  auto const o = galore_torch_settings(16);
  CHECK(o.rank == 16);
  CHECK(o.lift.scale == 0.25F);
  CHECK(o.refresh.period == 200);
  CHECK(o.rule.epsilon == 1e-6);
  CHECK(o.rule.epsilon_added_to == rule::epsilon_form::raw_root);
  CHECK(o.rule.decay == decay_order::after);
  auto const lion_o = galore_torch_settings<galore_lion>(8);
  CHECK(lion_o.lift.scale == 0.25F);
}

TEST_CASE("schedules") {
  CHECK(schedule::constant{}.factor(12345) == 1);
  schedule::warmup_cosine const s{.warmup = 4, .total = 14, .floor = 0.1};
  s.check();
  CHECK(s.factor(0) == 0.25);
  CHECK(s.factor(3) == 1);
  CHECK(s.factor(4) == 1);
  CHECK(s.factor(9) == doctest::Approx(0.55));
  CHECK(s.factor(14) == doctest::Approx(0.1));
  CHECK(s.factor(1000) == doctest::Approx(0.1));
  for (index_t k = 4; k < 14; ++k) CHECK(s.factor(k + 1) < s.factor(k));
  CHECK_THROWS_AS((schedule::warmup_cosine{.warmup = 5, .total = 4}.check()), argument_error);
  CHECK_THROWS_AS((schedule::warmup_cosine{.warmup = -1, .total = 4}.check()), argument_error);
  CHECK_THROWS_AS((schedule::warmup_cosine{.floor = 1.5}.check()), argument_error);
}

TEST_SUITE_END();

}  // namespace

}  // namespace composition_test
