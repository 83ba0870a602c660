#include "lowrank/linalg/host/eigen_decompositions.hpp"
#include "lowrank/lowrank.hpp"
#include "training_run.hpp"

namespace llama {

run_result run_on_eigen(demo_settings const& settings, std::string const& optimizer) {
  using executor = lowrank::host_executor;
  peak_memory::reset();
  executor exec{{.threads = settings.threads}};
  lowrank::by_name_context<executor> context;
  context.exact_svd = [](executor& e, lowrank::matrix_view<float const> a, lowrank::svd_output<> const& out) {
    return exact_svd(e, a, out);
  };
  return training_run<executor>{exec, settings, optimizer, context}.run();
}

}  // namespace llama
