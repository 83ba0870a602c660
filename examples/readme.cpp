#include <cstdio>
#include <vector>

#include "lowrank/interop/raw.hpp"
#include "lowrank/lowrank.hpp"

int main() {
  std::vector<float> weights(512 * 128, 1.0F), gradients(512 * 128);  // yours, wherever they live

  lowrank::host_executor exec;                  // threads and scratch memory
  lowrank::galore_adamw optimizer{.rank = 32};  // settings are a plain aggregate
  optimizer.refresh.period = 50;

  auto const w = lowrank::raw::row_major(weights.data(), 512, 128);
  lowrank::matrix_view<float const> const g = lowrank::raw::row_major(gradients.data(), 512, 128);
  auto state = optimizer.init(exec, w.shape(), 0);                     // all memory it will ever have
  exec.reserve(optimizer.workspace_bytes(lowrank::fp32_weight<>{w}));  // and all the scratch it needs

  for (int step = 0; step < 200; ++step) {
    for (std::size_t i = 0; i < weights.size(); ++i) gradients[i] = weights[i];  // your backward pass: here of ‖W‖² / 2
    optimizer.step(exec, state, w, g, {.learning_rate = 0.05F});
  }
  std::printf("weight %g, state %lld bytes, AdamW's %lld\n", static_cast<double>(weights[0]),
              static_cast<long long>(optimizer.bytes(w.shape())),
              static_cast<long long>(lowrank::adamw{}.bytes(w.shape())));
  return weights[0] < 0.5F ? 0 : 1;
}
