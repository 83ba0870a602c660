#include "lowrank/linalg/host/eigen_decompositions.hpp"
#include "lowrank/lowrank.hpp"
#include "training_run.hpp"

namespace llama {

std::vector<run_result> run_on_eigen(demo_settings const& settings, std::vector<run_choice> const& choices) {
  return run_on<lowrank::host_executor>(settings, choices);
}

}  // namespace llama
