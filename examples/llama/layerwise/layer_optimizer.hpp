/// @file
/// Q-GaLore on the matrices of the layers, 8-bit or 4-bit AdamW on embedding and head in blocks of rows, AdamW on the norms:
/// each parameter moves as soon as its gradient is known.
#pragma once

#include <chrono>

#include "coded_model.hpp"
#include "layer_passes.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/optim/compose.hpp"
#include "lowrank/optim/full_rank.hpp"
#include "lowrank/refresh/lazy_overlap.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/quantized_moment.hpp"

namespace llama {

/// What is known of all refreshes so far.
struct refresh_watch {
  index_t cold{}, warm{};
  double worst_departure{}, worst_warm_departure{};  ///< ‖PᵀP - I‖_F of a basis before it is put in codes
  double seconds{};
};

/// `basis::warm_start` under observation.
struct watched_start : lowrank::basis::warm_start {
  refresh_watch* watch{};

  [[nodiscard]] index_t workspace_bytes(lowrank::extents g, index_t r, index_t tokens) const {
    return std::max(lowrank::basis::warm_start::workspace_bytes(g, r, tokens), lowrank::scratch_bytes<double>(r * r));
  }
  template <lowrank::executor E, lowrank::gradient G>
  void find(E& exec, state<typename E::space>& s, lowrank::finder_inputs<E, G> const& in, lowrank::view_of<E> p,
            std::int32_t* failed) const {
    auto const began = std::chrono::steady_clock::now();
    lowrank::basis::warm_start::find(exec, s, in, p, failed);
    watch->seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    bool const is_first = in.previous.empty();
    (is_first ? watch->cold : watch->warm) += 1;
    lowrank::scratch_scope const scope{exec};
    auto const square = take_matrix<double>(exec, {p.cols, p.cols});
    gram(exec, p, square);
    double sum = 0;
    for (index_t i = 0; i < p.cols; ++i)
      for (index_t j = 0; j < p.cols; ++j) {
        double const off = square(i, j) - (i == j ? 1 : 0);
        sum += off * off;
      }
    auto const keep = [&](double& worst) { worst = std::isfinite(sum) ? std::max(worst, std::sqrt(sum)) : sum; };
    keep(watch->worst_departure);
    if (!is_first) keep(watch->worst_warm_departure);
  }
};

/// The weight as the update opens it: in panels of about 512 rows, because a product of rank 1024 with 128 would spend as long
/// on packing its operands.
struct tall_panels : coded_weight {
  [[nodiscard]] index_t row_quantum() const noexcept {
    index_t const own = coded_weight::row_quantum();
    return std::max<index_t>(512 / own, 1) * own;
  }
};

enum class matrix_gradient : std::uint8_t { factored, dense };

struct optimizer_settings {
  index_t rank{1024};
  double learning_rate{1e-3}, scale{0.25},
      weight_decay{0.01};  ///< norms, embedding and head move at scale times the rate
  matrix_gradient gradient{matrix_gradient::factored};
  index_t gap{200};
  index_t eager_layer{-1};   ///< its bases are found anew in every step
  index_t block_rows{1024};  ///< of embedding and head
  std::uint64_t seed{0};
};

/// `Kind` is one of lowrank::rule::moments.
template <class Executor, class Kind>
class layer_optimizer {
 public:
  using coded_adam = lowrank::rule::elementwise<lowrank::rule::adam_formula, lowrank::rule::quantized_moment<Kind>>;
  using in_subspace =
      lowrank::compose<coded_adam, watched_start, lowrank::refresh::lazy_overlap, lowrank::format::int4>;
  using on_rows = lowrank::full_rank<coded_adam>;
  using on_norms = lowrank::full_rank<lowrank::rule::adam>;

  layer_optimizer(Executor& exec, coded_model& model, optimizer_settings const& settings)
      : exec_{exec}, model_{model}, settings_{settings} {
    for (index_t i = 0; i < model.count(); ++i) {
      auto const& p = model[i];
      auto const tensor = static_cast<std::uint32_t>(i);
      if (is_coded(p)) matrices_.push_back(of_layer(settings_, p.layer).init(exec, p.shape, tensor));
      else matrices_.emplace_back();
      if (p.is_norm()) norms_.push_back(on_norms{}.init(exec, p.shape, tensor));
      else norms_.emplace_back();
    }
    // Numbers of blocks, apart from those of whole parameters.
    auto tensor = static_cast<std::uint32_t>(model.count());
    for (int table = 0; table < 2; ++table)
      for (index_t b = 0; b < row_blocks(settings_, model.config()); ++b) {
        auto const [begin, end] = row_block(settings_, model.config(), b);
        rows_.push_back(rows().init(exec, {end - begin, model.config().width}, tensor++));
      }
  }
  layer_optimizer(layer_optimizer const&) = delete;
  layer_optimizer& operator=(layer_optimizer const&) = delete;

  void matrix(index_t index, lowrank::outer_product<> g) {
    auto& state = matrices_[static_cast<std::size_t>(index)];
    auto const optimizer = of_layer(settings_, model_[index].layer, &watch_);
    tall_panels const weight{model_.matrix(index)};
    auto const options = options_at(1);
    if (settings_.gradient == matrix_gradient::factored) return count(optimizer.step(exec_, state, weight, g, options));
    lowrank::scratch_scope const scope{exec_};
    auto const dense = take_matrix(exec_, g.shape());
    multiply(exec_, 1.0F, g.output_gradient.t(), g.input, 0.0F, dense);
    count(optimizer.step(exec_, state, weight, dense, options));
  }
  void gain(index_t index, view<float> g) {
    count(on_norms{}.step(exec_, norms_[static_cast<std::size_t>(index)], model_.gain(index), g,
                          options_at(settings_.scale)));
  }
  /// One row block of the gradient at a time.
  void head(lowrank::outer_product<> g) {
    each_row_block(role::head, [&](index_t begin, index_t end, view<float> block) {
      multiply(exec_, 1.0F, g.output_gradient.col_range(begin, end).t(), g.input, 0.0F, block);
    });
  }
  /// Every row decays and its moments fade, whether its token occurs or not, as a dense gradient has it.
  void embedding(view<float const> d_stream, token_view const& batch) {
    each_row_block(role::embedding, [&](index_t begin, index_t end, view<float> block) {
      fill(exec_, block, 0.0F);
      for (index_t t = 0; t < d_stream.rows; ++t) {
        index_t const token = batch.tokens[static_cast<std::size_t>(t)];
        if (token < begin || token >= end) continue;
        for (index_t i = 0; i < block.cols; ++i) block(token - begin, i) += d_stream(t, i);
      }
    });
  }

  [[nodiscard]] refresh_watch const& watch() const noexcept { return watch_; }
  /// Steps that did not come to pass, or kept a basis that should have been renewed.
  [[nodiscard]] index_t refused() const noexcept { return refused_; }
  /// The largest and the smallest likeness of a new basis and the one before, ‖P_oldᵀ P‖² / r; -1 where there was none.
  [[nodiscard]] double least_overlap() const noexcept {
    double least = -1;
    for (auto const& s : matrices_)
      if (s.report.overlap >= 0) least = least < 0 ? s.report.overlap : std::min(least, s.report.overlap);
    return least;
  }
  /// f(name, bytes) for every buffer of every state; `where` says whose.
  template <class F>
  void each_buffer(F const& f) {
    auto const walk = [&](auto& state, char const* whose) {
      visit_state(state, [&](std::string_view name, auto&& value) {
        if constexpr (lowrank::state_memory<std::remove_reference_t<decltype(value)>>) f(whose, name, value.bytes());
      });
    };
    for (auto& s : matrices_) walk(s, "matrices");
    for (auto& s : norms_) walk(s, "norms");
    for (auto& s : rows_) walk(s, "rows");
  }

  // What a plan is made of, before there is a model.
  [[nodiscard]] static in_subspace of_layer(optimizer_settings const& settings, index_t layer,
                                            refresh_watch* watch = nullptr) {
    in_subspace out;
    out.rank = settings.rank;
    out.seed = settings.seed;
    out.refresh.gap = layer == settings.eager_layer ? 1 : settings.gap;
    out.lift.scale = static_cast<float>(settings.scale);
    // A gradient of a few hundred tokens has fewer directions than the basis: one product finds them all, and what it
    // leaves open comes from the old basis.
    out.finder.first = lowrank::basis::cold_search::sketch;
    out.finder.make_orthonormal.options.first_gram = lowrank::gram_kind::wide;  // it would have to be, in the end
    out.finder.iterate = {.fresh = 0, .passes = 1, .between = lowrank::between_products::nothing, .retained = 1e-4F};
    out.finder.watch = watch;
    return out;
  }
  [[nodiscard]] static index_t row_blocks(optimizer_settings const& settings, config const& c) noexcept {
    return (c.vocabulary + settings.block_rows - 1) / settings.block_rows;
  }
  /// Rows [begin, end) of embedding or head.
  struct range {
    index_t begin, end;
  };
  [[nodiscard]] static range row_block(optimizer_settings const& settings, config const& c, index_t number) noexcept {
    index_t const begin = number * settings.block_rows;
    return {begin, std::min(c.vocabulary, begin + settings.block_rows)};
  }

 private:
  [[nodiscard]] lowrank::step_options options_at(double factor) const noexcept {
    return {.learning_rate = static_cast<float>(settings_.learning_rate * factor),
            .weight_decay = static_cast<float>(settings_.weight_decay)};
  }
  [[nodiscard]] on_rows rows() const { return {.seed = settings_.seed}; }
  template <class Fill>
  void each_row_block(role what, Fill const& fill_block) {
    index_t const blocks = row_blocks(settings_, model_.config());
    for (index_t b = 0; b < blocks; ++b) {
      lowrank::scratch_scope const scope{exec_};
      auto const [begin, end] = row_block(settings_, model_.config(), b);
      lowrank::bf16_weight<> const weight{model_.narrow(what).values.row_range(begin, end)};
      auto const g = take_matrix(exec_, weight.shape());
      fill_block(begin, end, g);
      auto& state = rows_[static_cast<std::size_t>((what == role::head ? blocks : 0) + b)];
      count(rows().step(exec_, state, weight, g, options_at(settings_.scale)));
    }
  }
  void count(lowrank::step_status status) noexcept { refused_ += status == lowrank::step_status::stepped ? 0 : 1; }

  Executor& exec_;
  coded_model& model_;
  optimizer_settings settings_;
  refresh_watch watch_;
  index_t refused_{};
  std::vector<typename in_subspace::template state<lowrank::host_space>> matrices_;
  std::vector<typename on_norms::template state<lowrank::host_space>> norms_;
  std::vector<typename on_rows::template state<lowrank::host_space>> rows_;
};

}  // namespace llama
