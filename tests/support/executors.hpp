// The executors that laws are run on, with their primitives: TEST_CASE_TEMPLATE("...", E, LOWRANK_TEST_EXECUTORS).
#pragma once

#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/decompositions.hpp"

#if defined(LOWRANK_HAS_BLAS)
#include "lowrank/linalg/host/blas.hpp"
#define LOWRANK_TEST_EXECUTORS lowrank::host_executor, lowrank::blas_executor
#else
#define LOWRANK_TEST_EXECUTORS lowrank::host_executor
#endif
