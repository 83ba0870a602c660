/// @file
/// Everything for training on a CUDA device. Compile with `--extended-lambda --expt-relaxed-constexpr` (CMake:
/// lowrank::cuda); what runs on the host is compiled by a host compiler, in other files (lowrank.hpp).
#pragma once

#include "lowrank/linalg/cuda/columns.cuh"
#include "lowrank/linalg/cuda/elementwise.cuh"
#include "lowrank/linalg/cuda/products.cuh"
#include "lowrank/linalg/cuda/random.cuh"
#include "lowrank/linalg/cuda/reductions.cuh"
#include "lowrank/linalg/cuda/small_factorizations.cuh"
#include "lowrank/linalg/cuda/symmetric_eigen.cuh"
#include "lowrank/linalg/cuda/unit_scale.cuh"
#include "lowrank/quant/weight.cuh"
#include "lowrank/tile/tile.cuh"

#include "lowrank/basis/given.hpp"
#include "lowrank/basis/randomized.hpp"
#include "lowrank/basis/stiefel.hpp"
#include "lowrank/basis/tracked.hpp"
#include "lowrank/basis/two_sided.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/core/cuda/state.cuh"
#include "lowrank/optim/presets.hpp"
#include "lowrank/quant/quantized_weight.hpp"
#include "lowrank/refresh/captured_energy.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/refresh/staggered.hpp"
#include "lowrank/rule/quantized_moment.hpp"
#include "lowrank/transport/rotate.hpp"
#include "lowrank/version.hpp"
