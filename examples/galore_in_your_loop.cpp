// GaLore inside a training loop that knows nothing of it: plain std::vector buffers, a backward pass written by hand,
// and an optimizer that is handed pointers. The same loop is run with AdamW; GaLore must learn as much with less memory.
#include <cmath>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "lowrank/interop/raw.hpp"
#include "lowrank/lowrank.hpp"

namespace {

constexpr int inputs = 48, hidden = 128, outputs = 32, batch = 64, steps = 400;

// c(m x n) += a b, with a(i, k) at a[i * ai + k * ak]: all that this loop has of linear algebra.
void product(float const* a, int ai, int ak, float const* b, int bk, int bj, float* c, int m, int depth, int n) {
  for (int i = 0; i < m; ++i)
    for (int k = 0; k < depth; ++k)
      for (int j = 0; j < n; ++j) c[i * n + j] += a[i * ai + k * ak] * b[k * bk + j * bj];
}

// y = W2 tanh(W1 x + b1), all matrices row-major.
struct network {
  std::vector<float> w1 = std::vector<float>(hidden * inputs), b1 = std::vector<float>(hidden);
  std::vector<float> w2 = std::vector<float>(outputs * hidden);

  explicit network(unsigned seed, float size) {
    std::mt19937 random{seed};
    std::normal_distribution<float> normal;
    for (float& x : w1) x = size * normal(random) / std::sqrt(float{inputs});
    for (float& x : w2) x = size * normal(random) / std::sqrt(float{hidden});
  }
  void forward(std::vector<float> const& x, std::vector<float>& h, std::vector<float>& y) const {
    for (int t = 0; t < batch; ++t)
      for (int i = 0; i < hidden; ++i) h[static_cast<std::size_t>(t * hidden + i)] = b1[static_cast<std::size_t>(i)];
    product(x.data(), inputs, 1, w1.data(), 1, inputs, h.data(), batch, inputs, hidden);
    for (float& z : h) z = std::tanh(z);
    std::fill(y.begin(), y.end(), 0.0F);
    product(h.data(), hidden, 1, w2.data(), 1, hidden, y.data(), batch, hidden, outputs);
  }
};

struct result {
  double first{}, last{};  // loss before the first step, and the mean over the last ten
  lowrank::index_t bytes{};
};

// Somebody's training loop. What is new in it is marked.
template <class Optimizer>
result train(Optimizer const& optimizer, float learning_rate) {
  network const teacher{1, 1.0F};
  network net{2, 0.5F}, gradient{3, 0};
  std::vector<float> x(batch * inputs), h(batch * hidden), y(batch * outputs), wanted(batch * outputs),
      dh(batch * hidden);

  // new: views of the buffers above, state, and scratch. Nothing allocates after this.
  lowrank::host_executor exec;
  lowrank::adamw const for_vectors;
  auto const w1 = lowrank::raw::row_major(net.w1.data(), hidden, inputs);
  auto const w2 = lowrank::raw::row_major(net.w2.data(), outputs, hidden);
  auto const b1 = lowrank::raw::vector(net.b1.data(), hidden);
  auto const g1 = lowrank::raw::row_major(std::as_const(gradient.w1).data(), hidden, inputs);
  auto const g2 = lowrank::raw::row_major(std::as_const(gradient.w2).data(), outputs, hidden);
  auto const gb = lowrank::raw::vector(std::as_const(gradient.b1).data(), hidden);
  auto state1 = optimizer.init(exec, w1.shape(), 0), state2 = optimizer.init(exec, w2.shape(), 1);
  auto state_b = for_vectors.init(exec, b1.shape(), 2);
  for (auto const& w : {w1, w2}) exec.reserve(optimizer.workspace_bytes(lowrank::fp32_weight<>{w}));
  exec.reserve(for_vectors.workspace_bytes(lowrank::fp32_weight<>{b1}));

  result out{.bytes = optimizer.bytes(w1.shape()) + optimizer.bytes(w2.shape())};
  std::mt19937 random{4};
  std::normal_distribution<float> normal;
  for (int step = 0; step < steps; ++step) {
    for (float& value : x) value = normal(random);
    teacher.forward(x, h, wanted);
    net.forward(x, h, y);
    double loss = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      y[i] -= wanted[i];  // becomes the gradient of the loss with respect to y
      loss += 0.5 * static_cast<double>(y[i] * y[i]) / batch;
      y[i] /= batch;
    }
    for (auto* g : {&gradient.w1, &gradient.w2, &gradient.b1, &dh}) std::fill(g->begin(), g->end(), 0.0F);
    product(y.data(), 1, outputs, h.data(), hidden, 1, gradient.w2.data(), outputs, batch, hidden);
    product(y.data(), outputs, 1, net.w2.data(), hidden, 1, dh.data(), batch, outputs, hidden);
    for (std::size_t i = 0; i < dh.size(); ++i) dh[i] *= 1 - h[i] * h[i];
    product(dh.data(), 1, hidden, x.data(), inputs, 1, gradient.w1.data(), hidden, batch, inputs);
    for (std::size_t i = 0; i < dh.size(); ++i) gradient.b1[i % hidden] += dh[i];

    // new: the steps.
    optimizer.step(exec, state1, w1, g1, {.learning_rate = learning_rate});
    optimizer.step(exec, state2, w2, g2, {.learning_rate = learning_rate});
    for_vectors.step(exec, state_b, b1, gb, {.learning_rate = learning_rate});

    if (step == 0) out.first = loss;
    if (step >= steps - 10) out.last += loss / 10;
  }
  return out;
}

}  // namespace

int main() {
  auto const full = train(lowrank::adamw{}, 2e-3F);
  lowrank::galore_adamw galore{.rank = 12};
  galore.refresh.period = 20;
  auto const low = train(galore, 3e-3F);

  for (auto const& [name, r] : {std::pair{"AdamW ", full}, std::pair{"GaLore", low}})
    std::printf("%s  loss %5.2f -> %.3f  %6.1f kB of state\n", name, r.first, r.last,
                static_cast<double>(r.bytes) / 1e3);
  bool const learned = low.last < 0.15 * low.first && low.last < 1.1 * full.last;
  bool const saved = static_cast<double>(low.bytes) < 0.36 * static_cast<double>(full.bytes);
  std::puts(learned && saved ? "GaLore learned as much in a third of the memory" : "WRONG: see the numbers above");
  return learned && saved ? 0 : 1;
}
