/// @file
/// Everything for training on the host: products by Eigen, optimizers, presets. Exact decompositions, BLAS, files and
/// construction by name have headers of their own, because they cost compile time or packages.
#pragma once

#include "lowrank/version.hpp"

#include "lowrank/core/executor.hpp"
#include "lowrank/core/gradient.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/status.hpp"
#include "lowrank/core/visit.hpp"

#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"

#include "lowrank/basis/given.hpp"
#include "lowrank/basis/randomized.hpp"
#include "lowrank/basis/stiefel.hpp"
#include "lowrank/basis/tracked.hpp"
#include "lowrank/basis/two_sided.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/quant/quantized_weight.hpp"
#include "lowrank/rank/energy.hpp"
#include "lowrank/refresh/budget.hpp"
#include "lowrank/refresh/captured_energy.hpp"
#include "lowrank/refresh/energy_rank.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/refresh/staggered.hpp"
#include "lowrank/rule/quantized_moment.hpp"
#include "lowrank/transport/rotate.hpp"
