#include "training_run.hpp"

#if defined(LLAMA_WITH_BLAS)

#include "lowrank/linalg/host/blas.hpp"
#include "lowrank/linalg/host/lapack_decompositions.hpp"
#include "lowrank/lowrank.hpp"

namespace llama {

std::vector<run_result> run_on_blas(demo_settings const& settings, std::vector<run_choice> const& choices) {
  return run_on<lowrank::blas_executor>(settings, choices);
}

}  // namespace llama

#else

namespace llama {

std::vector<run_result> run_on_blas(demo_settings const&, std::vector<run_choice> const&) {
  throw lowrank::argument_error{"llama_demo: built without BLAS; use --backend eigen"};
}

}  // namespace llama

#endif
