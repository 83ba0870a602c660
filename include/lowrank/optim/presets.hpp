/// @file
/// A paper's name is an alias; what its published code chose is a value of the settings.
#pragma once

#include "lowrank/basis/randomized.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/full_rank.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/rule/adafactor.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/low_bit_adam.hpp"
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

/// GaLore over Adam with bitsandbytes' 8-bit moments; R of fewer than 4096 elements keeps them in fp32.
template <class Finder = basis::randomized>
using galore_adamw_8bit_with = compose<rule::adam_8bit, Finder>;
using galore_adamw_8bit = galore_adamw_8bit_with<>;

/// The choices of galore_torch's GaLoreAdamW8bit: torch's epsilon, 1e-8, decay after the update, scale 0.25, a new basis
/// every 200 steps. Its default weight decay is 1e-2, ours is that of the step.
/// Not taken over: arguments to bitsandbytes by position, with which some of its versions freeze parameters whose moments
/// are fp32; the direction rounded to the weight's number format before it is projected back.
template <class Optimizer = galore_adamw_8bit>
[[nodiscard]] Optimizer galore_torch_8bit_settings(index_t rank) {
  Optimizer out{.rank = rank};
  out.rule.decay = decay_order::after;
  out.lift.scale = 0.25F;
  return out;
}

/// Q-GaLore (Zhang et al., arXiv 2407.08296): 8-bit moments, a basis in four bits, and ever fewer refreshes. The eight-bit
/// weight comes with the weight view: step a `quantized_weight`. Settings as they stand are ours: torch's epsilon and
/// decay, whole subspaces compared.
template <class Finder = basis::warm_start>
using q_galore_adamw_8bit_with = compose<rule::adam_8bit, Finder, refresh::lazy_overlap, format::int4>;
using q_galore_adamw_8bit = q_galore_adamw_8bit_with<>;

/// The choices of Q-GaLore's published code: torch's epsilon, 1e-8, decay after the update, scale 0.25, a gap of 200 that
/// doubles when the cosines of five first singular vectors have a mean of 0.4; the five are kept after that.
/// Not taken over, because they are defects:
/// - a block of one sign collapses to nearly one value, as the zero point is clamped: ranges contain 0 here;
/// - "four bits" take a byte: packed here;
/// - weights are rounded stochastically in bf16, where most of it does nothing: in fp32 here, and the range is one code
///   wider, so that the ends of a block are not biased by a clamp;
/// - a singular vector's sign is arbitrary, so an unchanged one may count as -1: a warm start keeps signs here;
/// - embeddings, norms and the head are never updated layer by layer, and hooks step on every micro-batch: a
///   `parameter_set` does neither;
/// - the script's beta2 is 0.95 in one mode and 0.999 in the other: 0.999 here.
/// The cosine is taken with the old basis as it is kept, in four bits. First vectors are singular vectors where the finder
/// orders columns by their energy: basis::svd, and warm starts after the first refresh.
template <class Optimizer = q_galore_adamw_8bit>
[[nodiscard]] Optimizer q_galore_settings(index_t rank) {
  Optimizer out = galore_torch_8bit_settings<Optimizer>(rank);
  out.refresh.of = refresh::likeness::first_vectors;
  if constexpr (requires { out.finder.iterate.order; }) {
    out.finder.iterate.order = column_order::by_energy;
    out.finder.iterate.align = alignment::signs;
  }
  return out;
}

/// The usual optimizers of whole parameters.
using adamw = full_rank<rule::adam>;
using sgd = full_rank<rule::sgd>;
using adafactor = full_rank<rule::adafactor>;
using lion = full_rank<rule::lion>;

/// AdamW with moments in codes; small parameters keep fp32. 8-bit: bitsandbytes, decay before the update as in its torch
/// backend; `bitsandbytes_cuda_settings` for its kernels. torchao's three have its blocks: 256, 128 and 256.
using adamw_8bit = full_rank<rule::adam_8bit>;
using adamw_8bit_cuda = full_rank<rule::adam_8bit_cuda>;
using adamw_8bit_torchao = full_rank<rule::adam_8bit_torchao>;
using adamw_4bit = full_rank<rule::adam_4bit>;
using adamw_fp8 = full_rank<rule::adam_fp8>;

/// The choices of bitsandbytes' CUDA kernels: decay after the update, and a small negative first moment stays negative.
[[nodiscard]] inline adamw_8bit_cuda bitsandbytes_cuda_settings() {
  adamw_8bit_cuda out;
  out.rule.decay = decay_order::after;
  return out;
}

}  // namespace lowrank
