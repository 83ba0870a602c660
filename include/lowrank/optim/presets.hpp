/// @file
/// A paper's name is an alias; what its published code chose is a value of the settings.
#pragma once

#include "lowrank/basis/randomized.hpp"
#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/full_rank.hpp"
#include "lowrank/rule/adafactor.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/sgd.hpp"

namespace lowrank {

/// GaLore (Zhao et al., arXiv 2403.03507) over a rule, with the basis from a randomized range finder by default; with
/// basis::svd from an exact SVD, as the paper's code has it.
template <class Finder = basis::randomized>
using galore_adamw_with = compose<rule::adam, Finder>;
using galore_adamw = galore_adamw_with<>;
using galore_adafactor = compose<rule::adafactor, basis::randomized>;
using galore_sgd = compose<rule::sgd, basis::randomized>;
using galore_lion = compose<rule::lion, basis::randomized>;

/// The choices of galore_torch's GaLoreAdamW: epsilon beside the raw root, decay after the update, scale 0.25, a new
/// basis every 200 steps.
template <class Optimizer = galore_adamw>
[[nodiscard]] Optimizer galore_torch_settings(index_t rank) {
  Optimizer out{.rank = rank};
  if constexpr (requires { out.rule.epsilon_added_to; })
    static_cast<rule::adam_formula&>(out.rule) = rule::adam_formula::galore();
  out.lift.scale = 0.25F;
  return out;
}

/// The usual optimizers of whole parameters.
using adamw = full_rank<rule::adam>;
using sgd = full_rank<rule::sgd>;
using adafactor = full_rank<rule::adafactor>;
using lion = full_rank<rule::lion>;

}  // namespace lowrank
