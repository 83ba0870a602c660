/// @file
/// What the programs about SmolLM2 compute with: BLAS and LAPACK where they are there, else Eigen.
#pragma once

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#include "lowrank/linalg/host/lapack_decompositions.hpp"
#else
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/linalg/host/eigen_decompositions.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#endif

namespace smollm2 {

#if defined(LOWRANK_HAS_BLAS)
using executor_type = lowrank::blas_executor;
#else
using executor_type = lowrank::host_executor;
#endif

}  // namespace smollm2
