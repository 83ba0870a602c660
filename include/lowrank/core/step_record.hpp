/// @file
/// The scalars of one step, kept in the optimizer's memory space so that a step needs no round trip to the host.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lowrank {

/// Written by one-thread kernels (`exec.single`), read by every kernel of the step. `skip` decides: whoever writes a
/// weight or a state reads it first.
struct step_record {
  std::uint32_t skip{};      ///< not 0: bad numbers were met, nothing may change; keep = 1, down = -1 and N = 0 then
  float grad_scale{1};       ///< the gradient counts this many times (clipping, micro-batches, loss scale)
  float learning_rate{};     ///< as given to the step
  float decay{};             ///< weight decay coefficient as given to the step
  float rate{};              ///< what multiplies the rule's direction, learning rate inside; set by the rule
  float direction_scale{1};  ///< what the rule folds into the direction it writes: rate times lift scale
  float keep{1};             ///< what decay leaves of a weight, 1 - learning rate * decay; set by the rule
  float down{-1};            ///< W <- keep W + down X: -1, or -keep where decay follows the update
  double energy{};           ///< sum of squares of the scaled gradient, or a bound of it
  double projected{};        ///< sum of squares of the scaled projected gradient
  std::uint32_t replays{};   ///< how often this step has been repeated with the same host side (see live_options)
  double weight_rms{};       ///< root mean square of the weight, for rules that ask
};
static_assert(std::is_trivially_copyable_v<step_record>);

/// Where weight decay acts: W <- (1 - ηλ) W before the update, after it, or (coupled) as λW added to the gradient.
enum class decay_order : std::uint8_t { before, after, coupled };

/// Options that a step reads where it runs, when it runs: a step recorded once (a CUDA graph) and repeated follows a
/// schedule. Whoever repeats it sets `replays` to 1, 2, 3 ... before, so that rounding goes on with new random numbers, and
/// tells the state by `advance`.
struct live_options {
  float learning_rate{1e-3F};
  float weight_decay{0};
  float grad_scale{1};
  std::uint32_t replays{};
};
static_assert(std::is_trivially_copyable_v<live_options>);

/// What a caller says about one step.
struct step_options {
  float learning_rate{1e-3F};
  float weight_decay{0};
  float grad_scale{1};  ///< multiplies the gradient: 1 / micro-batches, a clipping factor, 1 / loss scale
  live_options const*
      live{};  ///< in the executor's memory; where not null, its numbers are taken instead of those above
};

}  // namespace lowrank
