/// @file
/// Everything a forward and a backward pass keep, in one allocation made once.
#pragma once

#include <span>
#include <vector>

#include "parameters.hpp"

namespace llama {

/// Tokens of `sequences` texts of `length` each, one text after the other.
struct token_view {
  std::span<std::int32_t const> tokens;
  index_t sequences{}, length{};

  [[nodiscard]] index_t count() const noexcept { return sequences * length; }
};

/// Whether a backward pass will follow. Without one, all layers share the memory of one.
enum class pass : std::uint8_t { training, inference };

/// Bytes of the parts of `activations`.
struct activation_bytes {
  index_t streams, layers, logits, rest;

  [[nodiscard]] index_t total() const noexcept { return streams + layers + logits + rest; }
};

/// The memory of one pass. The backward pass writes each gradient over the value it belongs to, as soon as that value is
/// not needed any more; so every output gradient dY and every input X of a linear layer is still there when it ends, and
/// factored gradients take no memory of their own.
template <class T>
class activations {
 public:
  /// What one layer keeps, T tokens high. Each of the first five holds its own gradient after the backward pass.
  struct layer {
    view<T> stream;           ///< T x width: residual stream before attention
    view<T> query_key_value;  ///< T x (width + 2 kv_width)
    view<T> middle;           ///< T x width: residual stream before the feed-forward part
    view<T> gate_up;          ///< T x 2 ffn
    T* probabilities;         ///< sequences x heads x length x padded length
    view<T> normed;           ///< T x width: input of query, key and value
    view<T> mixed;            ///< T x width: input of the attention output
    view<T> middle_normed;    ///< T x width: input of gate and up
    view<T> active;           ///< T x ffn: input of down
    T* scale;                 ///< T: 1 / RMS of stream
    T* middle_scale;          ///< T: 1 / RMS of middle
  };

  /// With a plan, also what weights in factors keep between their two products.
  activations(llama::config const& c, index_t sequences, index_t length, pass purpose, linear_plan const& plan = {})
      : config_{c}, purpose_{purpose}, inner_{c, plan, purpose} {
    validate(c);
    lowrank::require<lowrank::shape_error>(sequences > 0 && length > 0 && length <= c.sequence, "llama::activations",
                                           "needs sequences >= 1 and length in [1, ", c.sequence, "], got ", sequences,
                                           " and ", length);
    capacity_ = extent_of(sequences, length);
    index_t const layer_count = purpose == pass::training ? c.layers : 1;
    layer_stride_ = slots(capacity_).layer;
    storage_ = lowrank::buffer<T>{slots(capacity_).total(layer_count)};
    token_losses_ = lowrank::buffer<double>{sequences * length};
    cosines_ = lowrank::matrix<T>{c.sequence, c.head_width() / 2};
    sines_ = lowrank::matrix<T>{c.sequence, c.head_width() / 2};
    for (index_t i = 0; i < c.head_width() / 2; ++i) {
      double const frequency =
          std::pow(c.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_width()));
      for (index_t position = 0; position < c.sequence; ++position) {
        cosines_(position, i) = static_cast<T>(std::cos(static_cast<double>(position) * frequency));
        sines_(position, i) = static_cast<T>(std::sin(static_cast<double>(position) * frequency));
      }
    }
    shape_to(sequences, length);
  }

  /// What one of these holds, in bytes, without making it.
  [[nodiscard]] static activation_bytes bytes_for(llama::config const& c, index_t sequences, index_t length,
                                                  pass purpose, linear_plan const& plan = {}) {
    inner_ranks const inner{c, plan, purpose};
    auto const at = slots(c, extent_of(sequences, length), stream_count(c, purpose), inner);
    constexpr index_t each{sizeof(T)};
    index_t const layers = purpose == pass::training ? c.layers : 1;
    index_t const streams = (at.inner - at.streams) * each, logits = (at.scratch - at.logits) * each;
    index_t const tables = 2 * c.sequence * (c.head_width() / 2) * each;
    return {streams, layers * at.layer * each, logits,
            at.shared * each - streams - logits + sequences * length * index_t{sizeof(double)} + tables};
  }
  /// Everything held, in bytes.
  [[nodiscard]] index_t bytes() const noexcept {
    return storage_.bytes() + token_losses_.bytes() + cosines_.bytes() + sines_.bytes();
  }
  [[nodiscard]] llama::config const& config() const noexcept { return config_; }
  [[nodiscard]] pass purpose() const noexcept { return purpose_; }
  [[nodiscard]] index_t sequences() const noexcept { return shape_.sequences; }
  [[nodiscard]] index_t length() const noexcept { return shape_.length; }
  [[nodiscard]] index_t tokens() const noexcept { return shape_.tokens; }
  /// The most tokens of one sequence that fit.
  [[nodiscard]] index_t longest() const noexcept { return capacity_.length; }
  /// Row stride of one head's probabilities.
  [[nodiscard]] index_t padded_length() const noexcept { return shape_.padded; }

  /// Takes the shape of a pass over that many tokens, at most what the constructor was given.
  void shape_to(index_t sequences, index_t length) {
    lowrank::require<lowrank::shape_error>(
        sequences > 0 && length > 0 && sequences <= capacity_.sequences && length <= capacity_.length,
        "llama::activations", "hold up to ", capacity_.sequences, " sequences of ", capacity_.length, " tokens, got ",
        sequences, " of ", length);
    shape_ = extent_of(sequences, length);
  }

  /// Layer `l`. `at(layers)` is only asked for its stream: what the last layer leaves behind.
  [[nodiscard]] layer at(index_t l) noexcept {
    index_t const t = shape_.tokens, d = config_.width;
    T* p = storage_.data() + slots(capacity_).shared + (purpose_ == pass::training ? l * layer_stride_ : 0);
    auto const take = [&](index_t cols, index_t rows) { return std::exchange(p, p + padded(rows * cols)); };
    auto const rows = [&](index_t cols) { return lowrank::row_major(take(cols, capacity_.tokens), {t, cols}); };
    layer out{};
    out.stream = stream(l);
    if (l == config_.layers) return out;
    out.middle = rows(d);
    out.normed = rows(d);
    out.mixed = rows(d);
    out.middle_normed = rows(d);
    out.query_key_value = rows(d + 2 * config_.kv_width());
    out.gate_up = rows(2 * config_.ffn);
    out.active = rows(config_.ffn);
    out.scale = take(1, capacity_.tokens);
    out.middle_scale = take(1, capacity_.tokens);
    out.probabilities = p;
    return out;
  }
  /// T x m: what linear weight `what` of layer `l` puts out; its gradient after the backward pass.
  [[nodiscard]] view<T> output(role what, index_t l) noexcept {
    index_t const d = config_.width, kv = config_.kv_width(), ffn = config_.ffn;
    switch (what) {
      case role::query:
        return at(l).query_key_value.col_range(0, d);
      case role::key:
        return at(l).query_key_value.col_range(d, d + kv);
      case role::value:
        return at(l).query_key_value.col_range(d + kv, d + 2 * kv);
      case role::attention_output:
        return at(l).middle;
      case role::gate:
        return at(l).gate_up.col_range(0, ffn);
      case role::up:
        return at(l).gate_up.col_range(ffn, 2 * ffn);
      default:
        return at(l + 1).stream;
    }
  }
  /// T x n: what it takes in.
  [[nodiscard]] view<T> input(role what, index_t l) noexcept {
    switch (what) {
      case role::query:
      case role::key:
      case role::value:
        return at(l).normed;
      case role::attention_output:
        return at(l).mixed;
      case role::gate:
      case role::up:
        return at(l).middle_normed;
      default:
        return at(l).active;
    }
  }
  /// T x width: input of the head.
  [[nodiscard]] view<T> final_normed() noexcept { return shared(0, config_.width); }
  [[nodiscard]] T* final_scale() noexcept { return storage_.data() + slots(capacity_).final_scale; }
  /// T x vocabulary: logits, and after `cross_entropy` their gradient.
  [[nodiscard]] view<T> logits() noexcept { return shared(slots(capacity_).logits, config_.vocabulary); }
  /// T x max(ffn, width), for a gradient on its way down.
  [[nodiscard]] view<T> scratch(index_t cols) noexcept { return shared(slots(capacity_).scratch, cols); }
  /// T x rank: the input of a left factor; after the backward pass its gradient. Empty for a whole weight.
  [[nodiscard]] view<T> inner(role what, index_t l) noexcept {
    auto const at = inner_.find(what, l);
    return shared(slots(capacity_).inner + at.blocks * padded(capacity_.tokens), at.rank);
  }
  /// T x (m - r): outputs of a pivoted weight before they go to their places. Empty for other forms.
  [[nodiscard]] view<T> others(role what, index_t l) noexcept {
    return shared(slots(capacity_).others, inner_.find(what, l).others);
  }
  /// Rows of partial sums of norm gains.
  [[nodiscard]] T* gain_partials() noexcept { return storage_.data() + slots(capacity_).partials; }
  [[nodiscard]] std::span<double> token_losses() noexcept {
    return token_losses_.span().first(static_cast<std::size_t>(tokens()));
  }
  [[nodiscard]] T const* cosines(index_t position) const noexcept { return &cosines_(position, 0); }
  [[nodiscard]] T const* sines(index_t position) const noexcept { return &sines_(position, 0); }

  /// Tokens a task of an elementwise pass takes: fixed, so that results do not depend on the number of threads.
  static constexpr index_t rows_per_task = 32;
  [[nodiscard]] index_t row_tasks() const noexcept { return (tokens() + rows_per_task - 1) / rows_per_task; }

 private:
  struct extent {
    index_t sequences{}, length{}, tokens{}, padded{};
  };
  struct layout {
    index_t final_scale, logits, scratch, partials, streams, inner, others, shared, layer;
    [[nodiscard]] index_t total(index_t layers) const noexcept { return shared + layers * layer; }
  };
  /// Whole cache lines.
  [[nodiscard]] static index_t padded(index_t count) noexcept { return (count + 15) / 16 * 16; }
  [[nodiscard]] static extent extent_of(index_t sequences, index_t length) noexcept {
    return {sequences, length, sequences * length, (length + 31) / 32 * 32};
  }
  [[nodiscard]] static index_t stream_count(llama::config const& c, pass purpose) noexcept {
    return purpose == pass::training ? c.layers + 1 : 2;
  }
  /// Where the inner values of each linear weight begin, in blocks of one number a token.
  class inner_ranks {
   public:
    struct found {
      index_t blocks, rank, others;
    };
    inner_ranks(llama::config const& c, linear_plan const& plan, pass purpose) {
      plan.check(c);
      index_t begin = 0;
      for (index_t l = 0; l < c.layers; ++l) {
        if (purpose == pass::inference) begin = 0;
        for (index_t i = 0; i < linear_roles; ++i) {
          auto const kind = plan.at(static_cast<role>(i), l);
          index_t const rank = has_factors(kind.form) ? kind.rank : 0;
          index_t const others =
              kind.form == linear_form::pivoted ? linear_shape(c, static_cast<role>(i)).rows - rank : 0;
          widest_ = std::max(widest_, others);
          found_.push_back({std::exchange(begin, begin + rank), rank, others});
        }
        blocks_ = std::max(blocks_, begin);
      }
    }
    [[nodiscard]] found find(role what, index_t l) const noexcept {
      return found_[static_cast<std::size_t>(l * linear_roles + static_cast<index_t>(what))];
    }
    [[nodiscard]] index_t blocks() const noexcept { return blocks_; }
    /// The most rows of a pivoted weight that are no pivots.
    [[nodiscard]] index_t widest() const noexcept { return widest_; }

   private:
    std::vector<found> found_;
    index_t blocks_{}, widest_{};
  };
  [[nodiscard]] layout slots(extent const& e) const noexcept {
    return slots(config_, e, stream_count(config_, purpose_), inner_);
  }
  [[nodiscard]] static layout slots(llama::config const& c, extent const& e, index_t streams,
                                    inner_ranks const& inner) noexcept {
    index_t const t = e.tokens, d = c.width;
    layout out{};
    out.final_scale = padded(t * d);
    out.logits = out.final_scale + padded(t);
    out.scratch = out.logits + padded(t * c.vocabulary);
    out.partials = out.scratch + padded(t * std::max(c.ffn, d));
    out.streams = out.partials + padded((t + rows_per_task - 1) / rows_per_task * d);
    out.inner = out.streams + streams * padded(t * d);
    out.others = out.inner + inner.blocks() * padded(t);
    out.shared = out.others + padded(t * inner.widest());
    out.layer = 4 * padded(t * d) + padded(t * (d + 2 * c.kv_width())) + padded(t * 2 * c.ffn) + padded(t * c.ffn) +
                2 * padded(t) + padded(t * c.heads * e.padded);
    return out;
  }
  [[nodiscard]] view<T> shared(index_t offset, index_t cols) noexcept {
    return lowrank::row_major(storage_.data() + offset, {shape_.tokens, cols});
  }
  [[nodiscard]] view<T> stream(index_t l) noexcept {
    index_t const slot = purpose_ == pass::training ? l : l % 2;
    return shared(slots(capacity_).streams + slot * padded(capacity_.tokens * config_.width), config_.width);
  }

  llama::config config_;
  pass purpose_;
  inner_ranks inner_;
  extent capacity_, shape_;
  index_t layer_stride_{};
  lowrank::buffer<T> storage_;
  lowrank::buffer<double> token_losses_;
  lowrank::matrix<T> cosines_, sines_;
};

}  // namespace llama
