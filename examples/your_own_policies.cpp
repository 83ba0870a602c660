// A basis and an update rule of your own: a few lines each, in your code, and everything else is there already: sides,
// weight formats, checkpoints, exact byte counts, and the laws that every composition must keep.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#include "lowrank/lowrank.hpp"

using namespace lowrank;

/// The r rows of the gradient with the most energy. P has one 1 in each column, so projecting is picking rows.
struct largest_rows : basis::one_sided {
  static constexpr finder_traits traits{.takes_factored = false};

  [[nodiscard]] index_t workspace_bytes(extents g, index_t, index_t) const {
    return scratch_bytes<double>(g.rows) + scratch_bytes<index_t>(g.rows);
  }
  void find(host_executor& exec, finder_inputs<host_executor, matrix_view<float const>> const& in, matrix_view<float> p,
            std::int32_t* failed) const {
    scratch_scope const scope{exec};
    auto* const energy = exec.arena().take<double>(p.rows);
    auto* const order = exec.arena().take<index_t>(p.rows);
    row_mean_squares(exec, in.gradient, [=](index_t i, double mean_square) { energy[i] = mean_square; });
    for (index_t i = 0; i < p.rows; ++i) order[i] = i;
    std::sort(order, order + p.rows, [=](index_t a, index_t b) {
      return std::pair{energy[b], a} < std::pair{energy[a], b};
    });
    fill(exec, p, 0.0F);
    for (index_t k = 0; k < p.cols; ++k) p(order[k], k) = 1.0F;
    *failed = 0;
  }
};

/// AdaBelief (Zhuang et al., arXiv 2010.07468): Adam with the variance around the momentum in place of the square.
struct adabelief_formula {
  double beta1{0.9}, beta2{0.999}, epsilon{1e-8};
  decay_order decay{decay_order::before};

  static constexpr int moment_count = 2;
  struct scalars {
    float beta1, beta2, epsilon, m_correction, v_correction;
  };
  void check() const {
    require(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "adabelief", "betas must be in [0, 1)");
  }
  [[nodiscard]] scalars at(std::int64_t t, float) const {
    auto const weight = [t](double beta) { return static_cast<float>(1 / (1 - std::pow(beta, t))); };
    return {static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(epsilon), weight(beta1),
            weight(beta2)};
  }
  [[nodiscard]] float rate(std::int64_t, float learning_rate) const { return learning_rate; }
  // g and m are packs of floats here and single floats on a device: the formula is written once.
  static auto direction(auto g, auto& m, scalars const& s) {
    using real = decltype(g);
    m[0] = m[0] + real{1 - s.beta1} * (g - m[0]);
    auto const surprise = g - m[0];
    m[1] = real{s.beta2} * m[1] + real{1 - s.beta2} * (surprise * surprise) + real{s.epsilon};
    return real{s.m_correction} * m[0] / (square_root(real{s.v_correction} * m[1]) + real{s.epsilon});
  }
};
using adabelief = rule::elementwise<adabelief_formula>;

// Moments belong to rows here, and a new basis has other rows: they start again.
using mine = compose<adabelief, largest_rows, transport::reset>;
using theirs = compose<rule::adam, largest_rows, transport::reset>;  // your basis under a known rule
using also = compose<adabelief, basis::randomized, format::bf16>;    // your rule in a known basis

int failures = 0;
void law(bool holds, char const* what) {
  std::printf("%s  %s\n", holds ? "ok   " : "WRONG", what);
  failures += holds ? 0 : 1;
}

/// Pulls W towards a random matrix for 300 steps; the share of the distance that is left.
template <class Optimizer>
double train(host_executor& exec, Optimizer const& optimizer, matrix<float>&& w = {48, 32}) {
  matrix<float> goal{48, 32}, gradient{48, 32};
  fill_gaussian(exec, {.seed = 1}, goal.view());
  auto state = optimizer.init(exec, w.shape(), 0);
  exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w.view()}));
  double first{}, last{};
  for (int step = 0; step < 300; ++step) {
    for (index_t i = 0; i < goal.shape().size(); ++i) gradient.data()[i] = w.data()[i] - goal.data()[i];
    squared_norm(exec, gradient.view(), step == 0 ? &first : &last);
    optimizer.step(exec, state, w.view(), std::as_const(gradient).view(), {.learning_rate = 0.05F});
  }
  return std::sqrt(last / first);
}

int main() {
  host_executor exec;
  law(train(exec, mine{.rank = 8, .refresh = {10}}) < 0.05, "adabelief on the largest rows learns");
  law(train(exec, theirs{.rank = 8, .refresh = {10}}) < 0.05, "so does Adam on them");
  law(train(exec, also{.rank = 8, .refresh = {10}}) < 0.05, "and adabelief in a randomized basis kept in bf16");

  // At full rank the basis is a permutation, and the composition must be its rule, bit for bit.
  matrix<float> inside{48, 32}, whole{48, 32};
  train(exec, mine{.rank = 32, .refresh = {1000}}, std::move(inside));
  train(exec, full_rank<adabelief>{}, std::move(whole));
  law(std::memcmp(inside.data(), whole.data(), 48 * 32 * sizeof(float)) == 0,
      "at full rank it is its rule, bit for bit");

  // A finder's candidate has orthonormal columns.
  std::int32_t failed = 0;
  double departure = 0;
  matrix<float> g{48, 32}, p{48, 8};
  matrix<double> gram_of_p{8, 8};
  fill_gaussian(exec, {.seed = 3}, g.view());
  largest_rows{}.find(exec, {std::as_const(g).view(), 0, side::left, {}}, p.view(), &failed);
  gram(exec, p.view(), gram_of_p.view());
  for (index_t i = 0; i < 64; ++i) departure += std::abs(gram_of_p.data()[i] - (i % 9 == 0 ? 1 : 0));
  law(failed == 0 && departure == 0, "the basis is orthonormal");

  // The bytes are known before anything is allocated: 32 x 8 of basis, two moments of 48 x 8, and a few scalars.
  index_t const bytes = mine{.rank = 8}.bytes({48, 32}), formula = (32 * 8 + 2 * 48 * 8) * index_t{sizeof(float)};
  law(bytes >= formula && bytes < formula + 256, "the bytes are what the formula says");
  return failures == 0 ? 0 : 1;
}
