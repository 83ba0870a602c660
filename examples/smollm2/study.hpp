/// @file
/// Compressing the model in many ways and measuring each: decompositions are made once and cut at every rank.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibrate.hpp"
#include "llama/compressed.hpp"
#include "llama/progress.hpp"
#include "lowrank/compress/compressor.hpp"

namespace smollm2 {

/// One way to compress and what came of it.
struct compression_row {
  std::string method;
  lowrank::rank_budget budget;
  double rank_reduction{}, kept{};  ///< ERR reached; share of the linear parameters that are stored
  double threshold{};
  double perplexity{};
  double seconds{};                                     ///< for ranks and factors, decompositions aside
  std::array<index_t, llama::linear_roles> low_rank{};  ///< matrices cut by more than half, by kind
  std::vector<index_t> ranks;
};

inline constexpr std::array<char const*, llama::linear_roles> kind_names{"q", "k", "v", "o", "gate", "up", "down"};

/// The linear weights of all layers, layer by layer.
class linear_weights {
 public:
  explicit linear_weights(llama::parameters<float> const& model) {
    for (auto const& p : model.list())
      if (p.is_linear() && p.what != llama::role::head) list_.push_back(&p);
    model_ = &model;
  }
  [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }
  [[nodiscard]] llama::parameter const& operator[](std::size_t i) const noexcept { return *list_[i]; }
  [[nodiscard]] view<float const> weight(std::size_t i) const noexcept {
    return model_->weight(list_[i]->what, list_[i]->layer);
  }
  [[nodiscard]] index_t parameters() const noexcept {
    index_t sum = 0;
    for (auto const* p : list_) sum += p->shape.size();
    return sum;
  }
  /// As the library's compressors take them.
  [[nodiscard]] lowrank::matrices_in_memory collection() const {
    std::vector<lowrank::matrices_in_memory::entry> out;
    for (std::size_t i = 0; i < size(); ++i) out.push_back({list_[i]->name, weight(i)});
    return lowrank::matrices_in_memory{std::move(out)};
  }

 private:
  llama::parameters<float> const* model_;
  std::vector<llama::parameter const*> list_;
};

/// One factorizer's decompositions of all matrices.
struct decomposed {
  std::vector<lowrank::output_basis> bases;
  double seconds{};

  [[nodiscard]] std::vector<lowrank::spectrum> spectra() const {
    std::vector<lowrank::spectrum> out;
    for (auto const& basis : bases) out.push_back(basis.values());
    return out;
  }
};
template <class Executor, class Method>
[[nodiscard]] decomposed decompose(Executor& exec, Method const& method, linear_weights const& weights,
                                   calibrated const* seen) {
  double const began = llama::now();
  decomposed out;
  static lowrank::activation_statistics const none{};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    auto const known = seen != nullptr ? seen->of(weights[i].what, weights[i].layer) : lowrank::layer_statistics{};
    auto const& inputs = known.inputs != nullptr ? *known.inputs : none;
    if constexpr (lowrank::output_weighted_factorizer<Method>)
      out.bases.push_back(method.decompose(exec, weights.weight(i), inputs, *known.output_gradients));
    else out.bases.push_back(method.decompose(exec, weights.weight(i), inputs));
  }
  out.seconds = llama::now() - began;
  return out;
}

/// The matrices at given ranks, in the form the options ask for.
template <class Executor, class Method>
[[nodiscard]] std::vector<lowrank::compressed_matrix> cut(Executor& exec, Method const& method,
                                                          linear_weights const& weights, decomposed const& from,
                                                          calibrated const* seen, std::span<index_t const> ranks,
                                                          lowrank::compression_options const& options) {
  static lowrank::activation_statistics const none{};
  std::vector<lowrank::compressed_matrix> out;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    auto plan = lowrank::planned(weights[i].name, weights[i].shape, ranks[i], options);
    if (!plan.is_cut()) continue;
    auto const* const inputs = seen != nullptr ? seen->of(weights[i].what, weights[i].layer).inputs : nullptr;
    auto pair =
        lowrank::factors(exec, method, from.bases[i], weights.weight(i), inputs != nullptr ? *inputs : none, plan.rank);
    if (plan.form == lowrank::storage_form::factors) {
      out.push_back({std::move(plan), std::move(pair)});
    } else if (plan.form == lowrank::storage_form::pivoted) {
      out.push_back({std::move(plan), lowrank::pivoted(exec, pair.view())});
    } else {
      lowrank::dense_matrix whole{lowrank::matrix<float>{plan.shape}, std::move(pair.bias)};
      lowrank::merge(exec, pair.view(), whole.weight.view());
      out.push_back({std::move(plan), std::move(whole)});
    }
  }
  return out;
}

/// Measures allocations over decompositions, on windows that nothing was chosen by.
template <class Executor>
class study {
 public:
  study(Executor& exec, llama::parameters<float> const& model, windows const& scored)
      : exec_{exec}, model_{model}, weights_{model}, scored_{scored} {}

  [[nodiscard]] linear_weights const& weights() const noexcept { return weights_; }

  /// Ranks of `allocator` on `spectra`, factors of `method` cut from `from`, and the perplexity of the compressed model in
  /// the form it would be stored in.
  template <lowrank::rank_allocator Allocator, class Method>
  compression_row measure(std::string name, Allocator const& allocator, std::span<lowrank::spectrum const> spectra,
                          Method const& method, decomposed const& from, calibrated const* seen,
                          lowrank::compression_options const& options) {
    double const began = llama::now();
    auto const found = allocator.allocate(spectra, options.budget, options.ranks);
    auto const matrices = cut(exec_, method, weights_, from, seen, found.ranks, options);
    compression_row row;
    row.method = std::move(name);
    row.budget = options.budget;
    row.seconds = llama::now() - began;
    row.rank_reduction = found.rank_reduction;
    row.threshold = found.threshold;
    row.ranks = found.ranks;
    index_t kept = weights_.parameters();
    for (auto const& m : matrices) kept -= m.plan.shape.size() - m.plan.parameters();
    row.kept = static_cast<double>(kept) / static_cast<double>(weights_.parameters());
    for (std::size_t i = 0; i < weights_.size(); ++i)
      if (lowrank::is_low_rank_component(weights_[i].shape, found.ranks[i]))
        ++row.low_rank[static_cast<std::size_t>(weights_[i].what)];
    row.perplexity = perplexity_with(matrices);
    return row;
  }
  [[nodiscard]] double perplexity_with(std::span<lowrank::compressed_matrix const> matrices) {
    auto const compressed = llama::with_matrices(model_, matrices);
    llama::activations<float> memory{model_.config(), 1, scored_.length(), llama::pass::inference, compressed.plan()};
    return perplexity(exec_, compressed, scored_, memory);
  }

 private:
  Executor& exec_;
  llama::parameters<float> const& model_;
  linear_weights weights_;
  windows const& scored_;
};

}  // namespace smollm2
