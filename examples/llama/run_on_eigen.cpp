#include "lowrank/linalg/host/eigen_decompositions.hpp"
#include "lowrank/lowrank.hpp"
#include "training_run.hpp"

namespace llama {

run_result run_on_eigen(demo_settings const& settings, std::string const& optimizer) {
  return run_on<lowrank::host_executor>(settings, optimizer);
}

}  // namespace llama
