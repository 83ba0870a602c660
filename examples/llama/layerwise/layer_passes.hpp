/// @file
/// Forward and backward through a model in codes with the activations of a single layer: the forward pass keeps what enters
/// each layer, the backward pass computes a layer again, and every weight changes as soon as it has been used.
#pragma once

#include "../attention.hpp"
#include "../loss.hpp"
#include "../normalization.hpp"
#include "../swiglu.hpp"
#include "coded_model.hpp"
#include "coded_product.hpp"
#include "lowrank/core/gradient.hpp"

namespace llama {

/// What the backward pass reports to. A weight is not read any more when its gradient is reported, and may change at once.
template <class U>
concept weight_updates = requires(U& update, index_t index, lowrank::outer_product<> g, view<float> gain,
                                  token_view const& batch) {
  update.matrix(index, g);           ///< a matrix of a layer, from the factors of its gradient
  update.gain(index, gain);          ///< a norm
  update.head(g);                    ///< vocabulary x width, to be taken by row blocks
  update.embedding(g.input, batch);  ///< rows of the gradient belong to the tokens
};

/// The parts of a pass that are timed and counted apart.
enum class pass_part : std::uint8_t { forward, recompute, input_gradients, update, head, embedding };
inline constexpr std::size_t pass_parts = 6;

/// Activations of one layer, the inputs of all of them, and the passes.
template <class Executor>
class layer_passes {
 public:
  layer_passes(Executor& exec, coded_model& model, index_t sequences, index_t length)
      : exec_{exec},
        model_{model},
        memory_{one_layer(model.config()), sequences, length, pass::training},
        inputs_{(model.config().layers + 1) * sequences * length * model.config().width} {}

  [[nodiscard]] static config one_layer(config c) noexcept {
    c.layers = 1;
    return c;
  }
  [[nodiscard]] index_t activation_bytes() const noexcept { return memory_.bytes(); }
  [[nodiscard]] index_t checkpoint_bytes() const noexcept { return inputs_.bytes(); }

  /// Mean loss; the logits hold its gradient afterwards. `timed(part, layer, work)` runs `work`.
  template <class Timed>
  double forward(token_view const& batch, std::span<std::int32_t const> targets, Timed&& timed) {
    auto const& c = model_.config();
    check_tokens(batch);
    memory_.shape_to(batch.sequences, batch.length);
    embed(batch);
    for (index_t l = 0; l < c.layers; ++l)
      timed(pass_part::forward, l, [&] {
        run_to_active(l);
        auto const layer = memory_.at(0);
        apply_coded(exec_, read(layer.active), model_.matrix(role::down, l), input(l + 1));
        axpy(exec_, 1.0F, layer.middle, input(l + 1));
      });
    double loss = 0;
    timed(pass_part::head, c.layers, [&] {
      auto const stream = memory_.at(1).stream;
      copy(exec_, input(c.layers), stream);
      rms_norm<Executor, float>(exec_, {}, stream, model_.gain(role::final_norm), c.epsilon, memory_.final_normed(),
                                memory_.final_scale());
      apply_coded(exec_, read(memory_.final_normed()), model_.narrow(role::head), memory_.logits());
      loss = cross_entropy(exec_, memory_, targets, {});
    });
    return loss;
  }

  /// After `forward` over the same batch. From the head to the embedding, the dX of a weight before its update.
  template <weight_updates Update, class Timed>
  void backward(token_view const& batch, Update& update, Timed&& timed) {
    auto const& c = model_.config();
    auto const d_out = memory_.at(1).stream;
    timed(pass_part::head, c.layers, [&] {
      auto const d_normed = memory_.scratch(c.width);
      apply_coded_transposed(exec_, read(memory_.logits()), model_.narrow(role::head), 0.0F, d_normed);
      update.head({memory_.logits(), memory_.final_normed()});
      normalise(role::final_norm, 0, {}, d_normed, d_out, memory_.final_scale(), update);
    });
    for (index_t l = c.layers; l-- > 0;) {
      timed(pass_part::recompute, l, [&] { run_to_active(l); });
      feed_forward(l, update, timed);
      mix(l, update, timed);
      copy(exec_, memory_.at(0).stream, d_out);
    }
    timed(pass_part::embedding, 0, [&] { update.embedding(d_out, batch); });
  }

 private:
  static view<float const> read(view<float> v) noexcept { return v; }
  /// What enters layer l; `input(layers)` what leaves the last one.
  [[nodiscard]] view<float> input(index_t l) noexcept {
    index_t const t = memory_.tokens(), d = model_.config().width;
    return lowrank::row_major(inputs_.data() + l * t * d, {t, d});
  }
  void check_tokens(token_view const& batch) const {
    lowrank::require<lowrank::shape_error>(static_cast<index_t>(batch.tokens.size()) == batch.count(),
                                           "llama::layer_passes", "needs sequences x length = ", batch.count(),
                                           " tokens, got ", batch.tokens.size());
    for (auto const token : batch.tokens)
      lowrank::require(token >= 0 && token < model_.config().vocabulary, "llama::layer_passes",
                       "tokens must be in [0, ", model_.config().vocabulary, "), got ", token);
  }
  void embed(token_view const& batch) {
    auto const table = model_.narrow(role::embedding).values;
    auto const to = input(0);
    exec_.parallel(to.rows, [&](index_t t) {
      auto const row =
          table.row_range(batch.tokens[static_cast<std::size_t>(t)], batch.tokens[static_cast<std::size_t>(t)] + 1);
      for (index_t i = 0; i < to.cols; ++i) to(t, i) = lowrank::to_float(row(0, i));
    });
  }
  /// Everything of layer l but its last product.
  void run_to_active(index_t l) {
    auto const& c = model_.config();
    index_t const d = c.width, kv = c.kv_width();
    auto const layer = memory_.at(0);
    copy(exec_, input(l), layer.stream);
    rms_norm<Executor, float>(exec_, {}, layer.stream, model_.gain(role::attention_norm, l), c.epsilon, layer.normed,
                              layer.scale);
    auto const apply = [&](role what, view<float> x, view<float> y) {
      apply_coded(exec_, read(x), model_.matrix(what, l), y);
    };
    apply(role::query, layer.normed, layer.query_key_value.col_range(0, d));
    apply(role::key, layer.normed, layer.query_key_value.col_range(d, d + kv));
    apply(role::value, layer.normed, layer.query_key_value.col_range(d + kv, d + 2 * kv));
    attention(exec_, memory_, layer);
    apply(role::attention_output, layer.mixed, layer.middle);
    rms_norm<Executor, float>(exec_, layer.stream, layer.middle, model_.gain(role::mlp_norm, l), c.epsilon,
                              layer.middle_normed, layer.middle_scale);
    apply(role::gate, layer.middle_normed, layer.gate_up.col_range(0, c.ffn));
    apply(role::up, layer.middle_normed, layer.gate_up.col_range(c.ffn, 2 * c.ffn));
    swiglu<Executor, float>(exec_, layer.gate_up, layer.active);
  }
  template <class Update, class Timed>
  void feed_forward(index_t l, Update& update, Timed& timed) {
    auto const& c = model_.config();
    auto const layer = memory_.at(0);
    auto const d_out = memory_.at(1).stream, d_gate = layer.gate_up.col_range(0, c.ffn),
               d_up = layer.gate_up.col_range(c.ffn, 2 * c.ffn);
    auto const d_active = memory_.scratch(c.ffn);
    timed(pass_part::input_gradients, l,
          [&] { apply_coded_transposed(exec_, read(d_out), model_.matrix(role::down, l), 0.0F, d_active); });
    timed(pass_part::update, l, [&] { update.matrix(model_.index_of(role::down, l), {d_out, layer.active}); });
    auto const d_normed = memory_.scratch(c.width);
    timed(pass_part::input_gradients, l, [&] {
      swiglu_backward<Executor, float>(exec_, d_active, layer.gate_up);
      apply_coded_transposed(exec_, read(d_gate), model_.matrix(role::gate, l), 0.0F, d_normed);
      apply_coded_transposed(exec_, read(d_up), model_.matrix(role::up, l), 1.0F, d_normed);
    });
    timed(pass_part::update, l, [&] {
      update.matrix(model_.index_of(role::up, l), {d_up, layer.middle_normed});
      update.matrix(model_.index_of(role::gate, l), {d_gate, layer.middle_normed});
    });
    normalise(role::mlp_norm, l, d_out, d_normed, layer.middle, layer.middle_scale, update);
  }
  template <class Update, class Timed>
  void mix(index_t l, Update& update, Timed& timed) {
    auto const& c = model_.config();
    index_t const d = c.width, kv = c.kv_width();
    auto const layer = memory_.at(0);
    auto const d_query = layer.query_key_value.col_range(0, d), d_key = layer.query_key_value.col_range(d, d + kv),
               d_value = layer.query_key_value.col_range(d + kv, d + 2 * kv);
    auto const d_mixed = memory_.scratch(d);
    timed(pass_part::input_gradients, l, [&] {
      apply_coded_transposed(exec_, read(layer.middle), model_.matrix(role::attention_output, l), 0.0F, d_mixed);
    });
    timed(pass_part::update, l, [&] {
      update.matrix(model_.index_of(role::attention_output, l), {layer.middle, layer.mixed});
    });
    auto const d_normed = memory_.scratch(d);
    timed(pass_part::input_gradients, l, [&] {
      attention_backward(exec_, memory_, layer, d_mixed);
      apply_coded_transposed(exec_, read(d_query), model_.matrix(role::query, l), 0.0F, d_normed);
      apply_coded_transposed(exec_, read(d_key), model_.matrix(role::key, l), 1.0F, d_normed);
      apply_coded_transposed(exec_, read(d_value), model_.matrix(role::value, l), 1.0F, d_normed);
    });
    timed(pass_part::update, l, [&] {
      update.matrix(model_.index_of(role::value, l), {d_value, layer.normed});
      update.matrix(model_.index_of(role::key, l), {d_key, layer.normed});
      update.matrix(model_.index_of(role::query, l), {d_query, layer.normed});
    });
    normalise(role::attention_norm, l, layer.middle, d_normed, layer.stream, layer.scale, update);
  }
  template <class Update>
  void normalise(role what, index_t l, view<float const> skipped, view<float const> dy, view<float> x,
                 float const* scale, Update& update) {
    index_t const index = model_.index_of(what, l);
    lowrank::scratch_scope const scope{exec_};
    auto const d_gain = take_matrix(exec_, {1, model_.config().width});
    rms_norm_backward<Executor, float>(exec_, skipped, dy, model_.gain(index), scale, x, d_gain,
                                       memory_.gain_partials(), 0.0F);
    update.gain(index, d_gain);
  }

  Executor& exec_;
  coded_model& model_;
  activations<float> memory_;
  lowrank::buffer<float> inputs_;
};

}  // namespace llama
