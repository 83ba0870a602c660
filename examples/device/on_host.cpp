// Flat buffers in host memory: the twin of on_device.cu.
#include "lowrank/lowrank.hpp"

#include "flat_model.hpp"

int main() {
  using namespace flat_model;
  auto const begin = random_weights(1), wanted = random_weights(2);
  auto weights = begin;
  std::vector<bf16> gradients(weights.size());

  lowrank::host_executor exec;
  trainer training{exec, weights.data(), gradients.data()};
  for (index_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      gradients[i] = lowrank::to_bf16(weights[i].value() - wanted[i].value());
    training.step(rate_of(step));
  }
  return judge(begin, weights, wanted, training.state_bytes());
}
