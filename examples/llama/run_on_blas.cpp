#include "training_run.hpp"

#if defined(LLAMA_WITH_BLAS)

#include "lowrank/linalg/host/blas.hpp"
#include "lowrank/linalg/host/lapack_decompositions.hpp"
#include "lowrank/lowrank.hpp"

namespace llama {

run_result run_on_blas(demo_settings const& settings, std::string const& optimizer) {
  using executor = lowrank::blas_executor;
  peak_memory::reset();
  executor exec{{.threads = settings.threads}};
  lowrank::by_name_context<executor> context;
  context.exact_svd = [](executor& e, lowrank::matrix_view<float const> a, lowrank::svd_output<> const& out) {
    return exact_svd(e, a, out);
  };
  return training_run<executor>{exec, settings, optimizer, context}.run();
}

}  // namespace llama

#else

namespace llama {

run_result run_on_blas(demo_settings const&, std::string const&) {
  throw lowrank::argument_error{"llama_demo: built without BLAS; use --backend eigen"};
}

}  // namespace llama

#endif
