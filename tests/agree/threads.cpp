// The number of threads changes no bit. Compiled once more with -fopenmp, where Eigen would start threads of its own.
#include <doctest/doctest.h>

#include <Eigen/Core>

#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/tracked_range.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/transport/rotate.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"
#include "support/warm_starts.hpp"

namespace threads_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("threads");

constexpr int counts_of_threads[] = {1, 2, 3, 8};

TEST_CASE("random numbers, sketches, norms and bases") {
  extents const shape{301, 257};
  auto const a = random_matrix(shape, 3);
  std::vector<std::vector<double>> norms;
  std::vector<matrix<float>> sketches, normals, bases;
  for (int const threads : counts_of_threads) {
    host_executor exec{{.threads = threads, .scratch_bytes = 1 << 24}};
    rng_key const key{1, 2, 3, rng_purpose::sketch};
    fill_rademacher(exec, key, sketches.emplace_back(shape).view());
    fill_gaussian(exec, key, normals.emplace_back(shape).view());
    auto& n = norms.emplace_back(2);
    squared_norm(exec, read(a), n.data());
    squared_norm(exec, outer_product<>{read(a), read(a)}, n.data() + 1);
    find_range(exec, read(a), bases.emplace_back(301, 40).view(), {}, key);
  }
  for (std::size_t i = 1; i < norms.size(); ++i) {
    CHECK(same_bits(sketches[i], sketches[0]));
    CHECK(same_bits(normals[i], normals[0]));
    CHECK(same_bits(bases[i], bases[0]));
    CHECK(norms[i] == norms[0]);
  }
}

TEST_CASE("warm-started, tracked and Gram bases, and what moments become in another") {
  extents const shape{301, 257};
  index_t const r = 40;
  auto const a = random_matrix(shape, 3), dy = random_matrix({90, 301}, 4), x = random_matrix({90, 257}, 5);
  auto const p = orthonormal_basis(301, r, 6);
  auto const moments = random_matrix({r, 257}, 7);
  std::vector<std::vector<matrix<float>>> all;
  std::vector<std::vector<double>> numbers;
  for (int const threads : counts_of_threads) {
    host_executor exec{{.threads = threads, .scratch_bytes = 1 << 25}};
    rng_key const key{1, 2, 3, rng_purpose::basis};
    auto& found = all.emplace_back();
    auto& seen = numbers.emplace_back();
    range_report report;
    warm_options const by_energy{.fresh = 8, .passes = 2, .order = column_order::by_energy},
        framed{.fresh = 3, .between = between_products::nothing, .align = alignment::nearest_frame},
        shifted{.between = between_products::shift, .again = 5};
    for (auto const& options : {warm_options{}, by_energy, framed, shifted}) {
      warm_range(exec, read(a), read(p), found.emplace_back(301, r).view(), options, key, &report);
      seen.push_back(report.captured);
      warm_range(exec, outer_product<>{read(dy), read(x)}, read(p), found.emplace_back(301, r).view(), options, key);
      sketched_range(exec, read(a), read(moments).t(), read(p), found.emplace_back(301, r).view(), options, key);
    }
    for (index_t const fresh : {0, 8}) {
      matrix<float> mean{r, r};
      fill_identity(exec, mean.view());
      std::int64_t exponent = 2, next_exponent = 0;
      auto& q = found.emplace_back(301, r);
      auto& next = found.emplace_back(r, r);
      tracked_range(exec, read(a), read(p), tracked_mean<>{mean.view(), &exponent}, q.view(),
                    tracked_mean<>{next.view(), &next_exponent}, {.fresh = fresh}, key);
      seen.push_back(static_cast<double>(next_exponent));
    }
    for (auto const solver : {gram_solver::eigen, gram_solver::subspace}) {
      find_range_by_gram(exec, read(a).t(), found.emplace_back(257, r).view(), {.solver = solver}, key, &report);
      seen.push_back(report.captured);
    }
    rule::adam const rule{};
    auto state = rule.init(exec, {r, 257});
    for (index_t e = 0; e < moments.shape().size(); ++e) {
      state.moment[0].data()[e] = moments.data()[e];
      state.moment[1].data()[e] = 2 * moments.data()[e] * moments.data()[e];
    }
    *state.steps.data() = 5;
    auto const change = plain_product(read(p).t(), read(found[0]));
    matrix<float> turn{r, r};
    convert(exec, change.view(), turn.view());
    transport_inputs<host_executor> in{side::left, {r, 257}, {r, 257}};
    in.change.left = read(turn);
    transport::rotate{}.apply(exec, rule, state, in);
    for (auto const& moment : state.moment) found.push_back(copy_of(row_major(moment.data(), {r, 257})));
  }
  for (std::size_t i = 1; i < all.size(); ++i) {
    CHECK(numbers[i] == numbers[0]);
    for (std::size_t k = 0; k < all[0].size(); ++k) {
      CAPTURE(k);
      CHECK(same_bits(all[i][k], all[0][k]));
    }
  }
}

/// The weight after a few steps with refreshes, and the state.
template <class Optimizer, class Gradient>
std::pair<matrix<float>, state_copy> trained(Optimizer const& optimizer, int threads, extents shape,
                                             Gradient const& gradient) {
  host_executor exec{{.threads = threads, .scratch_bytes = 1 << 24}};
  auto state = optimizer.init(exec, shape, 5);
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 5; ++k)
    optimizer.step(exec, state, w.view(), gradient(k), step_options{.learning_rate = 0.01F, .weight_decay = 0.1F});
  return {copy_of(read(w)), saved(state)};
}

TEST_CASE("whole trajectories, compiled here") {
  galore_adamw const galore{.rank = 24, .refresh = {.period = 2}};
  adafactor const factors{.rule = {.beta1 = 0.9}};
  for (extents const shape : {extents{300, 190}, extents{190, 300}}) {
    std::vector<matrix<float>> dense, left, right;
    for (index_t k = 0; k < 5; ++k) {
      dense.push_back(gradient_of_step(shape, k));
      left.push_back(gradient_of_step({70, shape.rows}, k));
      right.push_back(gradient_of_step({70, shape.cols}, k + 50));
    }
    auto const whole = [&](index_t k) { return read(dense[static_cast<std::size_t>(k)]); };
    auto const factored = [&](index_t k) {
      return outer_product<>{read(left[static_cast<std::size_t>(k)]), read(right[static_cast<std::size_t>(k)])};
    };
    auto const a = trained(galore, 1, shape, whole), b = trained(galore, 1, shape, factored),
               c = trained(factors, 1, shape, whole), d = trained(adamw{}, 1, shape, whole);
    for (int const threads : {2, 3, 8}) {
      CAPTURE(threads);
      auto const same = [&](auto const& one, auto const& other) {
        return same_bits(one.first, other.first) && one.second == other.second;
      };
      CHECK(same(trained(galore, threads, shape, whole), a));
      CHECK(same(trained(galore, threads, shape, factored), b));
      CHECK(same(trained(factors, threads, shape, whole), c));
      CHECK(same(trained(adamw{}, threads, shape, whole), d));
    }
  }
}

TEST_CASE("whole trajectories of every kind, bf16 weights among them") {
  std::vector<std::pair<std::string, std::string>> const all{
      {"galore_adamw", "rank=24, update_proj_gap=2, basis_format=bf16"},
      {"galore_adamw", "rank=24, update_proj_gap=2, proj_type=full"},
      {"galore_adafactor", "rank=24, update_proj_gap=2, scale_parameter=true"},
      {"galore_sgd", "rank=24, update_proj_gap=2, finder=stiefel"},
      {"galore_lion", "rank=190, update_proj_gap=2"},
      {"galore_adamw", "rank=24, update_proj_gap=1, finder=warm, transport=rotate, align=nearest"},
      {"galore_adamw", "rank=24, update_proj_gap=1, finder=tracked, fresh=4, transport=rotate, proj_type=full"},
      {"galore_sgd", "rank=24, update_proj_gap=1, finder=warm, cheap=momentum, momentum=0.9, order=by_energy"},
      {"galore_lion",
       "rank=64, finder=warm, refresh=energy, settle=1, longest_gap=2, energy_rank=0.3, least_rank=1, rank_multiple=1"},
      {"adafactor", "beta1=0.9"},
      {"lion", ""},
      {"sgd", "momentum=0.9"}};
  extents const shape{300, 190};
  for (auto const& [name, options] : all) {
    CAPTURE(name);
    CAPTURE(options);
    std::vector<matrix<bf16>> weights;
    std::vector<state_copy> states;
    for (int const threads : counts_of_threads) {
      host_executor exec{{.threads = threads, .scratch_bytes = 1 << 24}};
      auto o = make_named(exec, name, options, shape);
      auto& w = weights.emplace_back(shape);
      for (index_t k = 0; k < 4; ++k)
        o->step(exec, bf16_weight<>{w.view()}, read(gradient_of_step(shape, k)), {.learning_rate = 0.01F});
      states.push_back(saved(*o));
    }
    for (std::size_t i = 1; i < weights.size(); ++i) {
      CHECK(same_bits(weights[i], weights[0]));
      CHECK(differences(states[i], states[0]) == "");
    }
  }
}

TEST_CASE("Eigen's own number of threads is left as it was") {
  int const before = Eigen::nbThreads();
  Eigen::setNbThreads(3);
  int const set = Eigen::nbThreads();  // 1 where Eigen has no threads
  extents const shape{120, 90};
  auto const g = gradient_of_step(shape, 0);
  std::ignore = trained(galore_adamw{.rank = 8}, 2, shape, [&](index_t) { return read(g); });
  CHECK(Eigen::nbThreads() == set);
  Eigen::setNbThreads(before);
}

TEST_SUITE_END();

}  // namespace

}  // namespace threads_test
