#include "training_run.hpp"

#if defined(LLAMA_WITH_BLAS)

#include "lowrank/linalg/host/blas.hpp"
#include "lowrank/linalg/host/lapack_decompositions.hpp"
#include "lowrank/lowrank.hpp"

namespace llama {

run_result run_on_blas(demo_settings const& settings, std::string const& optimizer) {
  return run_on<lowrank::blas_executor>(settings, optimizer);
}

}  // namespace llama

#else

namespace llama {

run_result run_on_blas(demo_settings const&, std::string const&) {
  throw lowrank::argument_error{"llama_demo: built without BLAS; use --backend eigen"};
}

}  // namespace llama

#endif
