// The number of threads changes no bit. Compiled once more with -fopenmp, where Eigen would start threads of its own.
#include <doctest/doctest.h>

#include <Eigen/Core>

#include "lowrank/lowrank.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

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
