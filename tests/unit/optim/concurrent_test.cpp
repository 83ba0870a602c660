// Distinct states, stepped at the same time by different threads, each with its executor.
#include <doctest/doctest.h>

#include <thread>

#include "lowrank/lowrank.hpp"
#include "support/optimizers.hpp"

namespace concurrent_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("threads");

matrix<float> trained(int threads, std::uint32_t tensor) {
  host_executor exec{{.threads = threads, .scratch_bytes = 1 << 21}};
  galore_adamw const optimizer{.rank = 8, .refresh = {.period = 2}};
  extents const shape{90, 60};
  auto state = optimizer.init(exec, shape, tensor);
  auto w = random_matrix(shape, tensor);
  for (index_t k = 0; k < 6; ++k)
    optimizer.step(exec, state, w.view(), read(gradient_of_step(shape, k)), step_options{.learning_rate = 0.01F});
  return w;
}

TEST_CASE("give what they give one after the other") {
  constexpr std::uint32_t many = 4;
  std::vector<matrix<float>> alone(many), together(many);
  for (std::uint32_t i = 0; i < many; ++i) alone[i] = trained(1, i);
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < many; ++i) threads.emplace_back([&, i] { together[i] = trained(2, i); });
  for (auto& t : threads) t.join();
  for (std::uint32_t i = 0; i < many; ++i) {
    CHECK(same_bits(together[i], alone[i]));
    CHECK_FALSE(same_bits(alone[i], alone[(i + 1) % many]));
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace concurrent_test
