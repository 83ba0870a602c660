/// @file
/// The executor of programs that measure subspaces, and the exact subspaces they measure against.
#pragma once

#include "lowrank/core/buffer.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#else
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"
#endif

namespace lowrank::bench {

#if defined(LOWRANK_HAS_BLAS)
using engine = blas_executor;
#else
using engine = host_executor;
#endif

/// All left singular vectors, m x min(m, n), and all singular values, descending.
struct exact_basis {
  matrix<float> u;
  std::vector<double> values;

  /// Energy of the r leading directions: the most that any basis of rank r captures.
  [[nodiscard]] double energy(index_t r) const {
    double sum = 0;
    for (std::size_t k = 0; k < std::min(values.size(), static_cast<std::size_t>(r)); ++k) sum += values[k] * values[k];
    return sum;
  }
};

/// By `exact_svd`. In a source file of its own, because decompositions take long to compile.
/// Throws: argument_error when it does not converge.
[[nodiscard]] exact_basis decompose(engine& exec, matrix_view<float const> g);

}  // namespace lowrank::bench
