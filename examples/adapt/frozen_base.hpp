/// @file
/// The frozen model that adapters are put beside: in one format, or in NF4 that has seen text, with INT8 where it pays.
#pragma once

#include <memory>
#include <optional>

#include "llama/frozen_model.hpp"
#include "lowrank/adapt/calibrated_nf4.hpp"
#include "lowrank/adapt/format_choice.hpp"
#include "lowrank/adapt/loftq.hpp"
#include "settings.hpp"
#include "smollm2/calibrate.hpp"

namespace adapting {

namespace adapt = lowrank::adapt;

/// Bases by name: one of `frozen_format`, or
/// nf4_gptq: NF4, codes and scales chosen for the inputs that the matrices have on the calibration text;
/// nf4_mixed: the same, and INT8 for the matrices that gain most by it, within a share of the bytes of the model in bf16. With
/// LoftQ, what its adapters give back is no gain.
/// The calibration text is looked at when a base first asks for it.
template <class Executor>
class frozen_bases {
 public:
  /// text: to calibrate on, in `windows` windows spread over it.
  frozen_bases(std::span<std::int32_t const> text, index_t windows) : text_{text}, windows_{windows} {}

  /// `model` with the matrices and the embedding that the trial says; the last one is kept, for the next trial that asks for
  /// the same. Inputs are those of the model as published: a method that changes a base gives back with its adapters what it
  /// takes.
  [[nodiscard]] std::shared_ptr<llama::parameters<float> const> make(Executor& exec, trial const& t,
                                                                     llama::parameters<float> const& published,
                                                                     llama::parameters<float> const& model) {
    std::string id = t.base + " " + t.embedding + " " + std::to_string(t.base_bytes);
    if (t.method == "loftq") id += " beside " + std::to_string(t.rank);
    bool const is_published = &model == &published;
    if (is_published && last_ && last_id_ == id) return last_;
    last_.reset();  // before there are two of them
    auto made = std::make_shared<llama::parameters<float> const>(frozen(exec, t, published, model));
    if (is_published) last_ = made, last_id_ = id;
    return made;
  }
  /// What matrices have been seen to take in and put out; null where the trial's base does not ask for it.
  [[nodiscard]] smollm2::calibrated const* seen_for(trial const& t) const noexcept {
    return is_calibrated(t.base) && seen_ ? &*seen_ : nullptr;
  }

 private:
  [[nodiscard]] llama::parameters<float> frozen(Executor& exec, trial const& t,
                                                llama::parameters<float> const& published,
                                                llama::parameters<float> const& model) {
    auto const format_of = [&](llama::parameter const& p) -> llama::frozen_choice {
      auto const& format = p.what == llama::role::embedding ? t.embedding : t.base;
      if (format == "fp32") return std::nullopt;
      return is_calibrated(format) ? adapt::frozen_format::nf4 : adapt::frozen_format_named(format);
    };
    if (!is_calibrated(t.base)) return llama::frozen_in(exec, model, format_of);
    look(exec, published);
    auto matrices = freeze(exec, t, model);
    return llama::frozen_in(
        model,
        [&](llama::parameter const& p) {
          auto const made = matrices.find(p.name);
          return made != matrices.end() ? llama::frozen_choice{made->second.format()} : format_of(p);
        },
        [&](llama::parameter const& p, lowrank::matrix_view<float const> w, adapt::frozen_format format) {
          auto const made = matrices.find(p.name);
          return made != matrices.end() ? std::move(made->second) : adapt::frozen_matrix{exec, w, format};
        });
  }

  using frozen_by_name = std::map<std::string, adapt::frozen_matrix, std::less<>>;
  static constexpr index_t length = 256;

  void look(Executor& exec, llama::parameters<float> const& published) {
    if (seen_) return;
    index_t const size = static_cast<index_t>(text_.size());
    lowrank::require(size >= windows_ * length, "adapting::frozen_bases", "needs ", windows_ * length,
                     " tokens to calibrate with, got ", size);
    std::fprintf(stderr, "== calibrating on %ld tokens\n", static_cast<long>(windows_ * length));
    // Spread over the text.
    smollm2::windows const text{"calibration", text_, {windows_, length, 0, size / windows_}};
    seen_.emplace(published.config(), smollm2::looking_at::inputs_and_output_gradients);
    seen_->add(exec, published, text, smollm2::label_source::model, windows_ % 4 == 0 ? 4 : 1);
  }
  /// All linear weights of the layers.
  [[nodiscard]] frozen_by_name freeze(Executor& exec, trial const& t, llama::parameters<float> const& model) const {
    std::fprintf(stderr, "== choosing codes for %s\n", t.base.c_str());
    bool const mixed = t.base == "nf4_mixed";
    std::vector<index_t> chosen;
    std::vector<std::array<adapt::frozen_matrix, 2>> made;
    std::vector<std::vector<adapt::format_option>> options;
    auto const reference = [](llama::parameter const& p) {
      return adapt::frozen_matrix::bytes(p.shape,
                                         p.is_norm() ? adapt::frozen_format::fp32 : adapt::frozen_format::bf16);
    };
    double whole = 0;
    index_t rest = 0;  // of what is not chosen here
    for (index_t i = 0; i < model.count(); ++i) {
      auto const& p = model[i];
      whole += static_cast<double>(reference(p));
      if (!p.is_linear() || p.what == llama::role::head) {
        auto const format =
            p.what == llama::role::embedding ? *adapt::frozen_format_named(t.embedding) : adapt::frozen_format::fp32;
        rest += adapt::frozen_matrix::bytes(p.shape, format);
        continue;
      }
      auto const w = model.weight(i);
      auto const seen = seen_->of(p.what, p.layer);
      chosen.push_back(i);
      made.push_back({adapt::naming(p.name, [&] { return adapt::calibrated_nf4(exec, w, *seen.inputs); }), {}});
      options.emplace_back();
      if (!mixed) continue;
      made.back()[1] = adapt::frozen_matrix{exec, w, adapt::frozen_format::int8};
      for (auto const& m : made.back()) {
        auto const &x = *seen.inputs, &g = *seen.output_gradients;
        double const loss = t.method == "loftq" ? adapt::loss_increase_beside_loftq(exec, w, m, x, g, t.rank)
                                                : adapt::loss_increase(exec, w, m, x, g);
        options.back().push_back({m.format(), m.bytes(), loss});
      }
    }
    std::vector<std::size_t> choice(chosen.size(), 0);
    if (mixed) choice = adapt::choose_formats(options, static_cast<index_t>(t.base_bytes * whole) - rest);
    frozen_by_name out;
    for (std::size_t k = 0; k < chosen.size(); ++k) out.emplace(model[chosen[k]].name, std::move(made[k][choice[k]]));
    return out;
  }

  std::span<std::int32_t const> text_;
  index_t windows_;
  std::optional<smollm2::calibrated> seen_;
  std::shared_ptr<llama::parameters<float> const> last_;
  std::string last_id_;
};

}  // namespace adapting
