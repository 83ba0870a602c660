/// @file
/// What the linear weights of a model take in, and the gradients of what they put out, over windows of text.
#pragma once

#include <map>

#include "lowrank/compress/matrix_collection.hpp"
#include "windows.hpp"

namespace smollm2 {

/// Whether the gradients of outputs are of use: a backward pass more.
enum class looking_at : std::uint8_t { inputs, inputs_and_output_gradients };

/// What each token is to be followed by, for gradients of outputs. The Fisher matrix is defined by the model's own
/// predictions: it says how much they change, whatever the text goes on with.
enum class label_source : std::uint8_t { text, model };

namespace detail {

/// Draws what follows each token from the logits. Cost: one exponential a logit.
template <class Executor>
void draw_labels(Executor& exec, view<float const> logits, lowrank::rng_key const& key, std::span<std::int32_t> out) {
  exec.parallel(logits.rows, [&](index_t t) {
    auto const row = std::span{logits.data + t * logits.row_stride, static_cast<std::size_t>(logits.cols)};
    auto const top = static_cast<double>(*std::ranges::max_element(row));
    double total = 0;
    for (float const x : row) total += std::exp(static_cast<double>(x) - top);
    double left = lowrank::uniform(key, static_cast<std::uint64_t>(t)) * total;
    std::size_t token = 0;
    while (token + 1 < row.size() && (left -= std::exp(static_cast<double>(row[token]) - top)) > 0) ++token;
    out[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(token);
  });
}

}  // namespace detail

/// Statistics of every linear weight of the layers. Weights with one input share its statistics.
class calibrated {
 public:
  calibrated(llama::config const& c, looking_at what) : config_{c}, what_{what} {
    for (index_t l = 0; l < c.layers; ++l)
      for (auto const& group : groups) inputs_.emplace_back(llama::linear_shape(c, group.front()).cols);
    if (what == looking_at::inputs) return;
    for (index_t l = 0; l < c.layers; ++l)
      for (index_t i = 0; i < llama::linear_roles; ++i)
        gradients_.emplace_back(llama::linear_shape(c, static_cast<llama::role>(i)).rows);
  }

  /// Adds a text. Gradients are those of its summed loss, token by token.
  /// together: windows of one pass. Whatever a pass adds costs the memory of the statistics once, so that several take less
  /// time than one after another, and more memory. The number of windows is a multiple of it.
  template <class Executor>
  void add(Executor& exec, llama::parameters<float> const& model, windows const& text,
           label_source labels = label_source::model, index_t together = 1) {
    lowrank::require(together > 0 && text.count() % together == 0, "smollm2::calibrated", "needs a multiple of ",
                     together, " windows, got ", text.count());
    index_t const tokens = together * text.length();
    std::vector<std::int32_t> drawn(static_cast<std::size_t>(tokens));
    llama::activations<float> memory{config_, together, text.length(), llama::pass::training, model.plan()};
    std::vector<llama::gradient_form> const none(static_cast<std::size_t>(model.count()), llama::gradient_form::none);
    llama::gradients<float> gradients{model, none};
    exec.reserve(lowrank::activation_statistics::workspace_bytes(std::max(config_.ffn, config_.width)));
    for (index_t w = 0; w < text.count(); w += together) {
      auto const batch = text.batch(w, w + together);
      llama::forward(exec, model, batch.inputs, memory);
      for (index_t l = 0; l < config_.layers; ++l)
        for (std::size_t g = 0; g < groups.size(); ++g)
          inputs_[static_cast<std::size_t>(l) * groups.size() + g].add(exec, memory.input(groups[g].front(), l),
                                                                       lowrank::gram_kind::mixed);
      if (what_ == looking_at::inputs) continue;
      bool const draws = labels == label_source::model;
      if (draws)
        detail::draw_labels(exec, memory.logits(),
                            {.seed = 1, .step = static_cast<std::uint32_t>(w), .purpose = lowrank::rng_purpose::data},
                            drawn);
      // Of the sum, so that windows of different lengths weigh their tokens alike; the text's last token has no successor.
      auto const counted = static_cast<double>(draws ? tokens : tokens - together);
      llama::cross_entropy(exec, memory, draws ? std::span<std::int32_t const>{drawn} : batch.targets,
                           {.scale = counted});
      llama::backward(exec, model, batch.inputs, memory, gradients);
      for (index_t l = 0; l < config_.layers; ++l)
        for (index_t i = 0; i < llama::linear_roles; ++i)
          gradients_[static_cast<std::size_t>(l * llama::linear_roles + i)].add(
              exec, memory.output(static_cast<llama::role>(i), l), lowrank::gram_kind::mixed);
    }
  }

  [[nodiscard]] lowrank::layer_statistics of(llama::role what, index_t layer) const {
    std::size_t group = 0;
    while (std::ranges::find(groups[group], what) == groups[group].end()) ++group;
    auto const input = static_cast<std::size_t>(layer) * groups.size() + group;
    auto const output = static_cast<std::size_t>(layer * llama::linear_roles + static_cast<index_t>(what));
    return {&inputs_[input], gradients_.empty() ? nullptr : &gradients_[output]};
  }
  /// The same by the names of a model's parameters.
  [[nodiscard]] lowrank::calibration by_name() const {
    auto places = std::make_shared<std::map<std::string, llama::parameter, std::less<>>>();
    for (auto& p : llama::parameter_list(config_)) places->emplace(p.name, p);
    return [this, places](std::string_view name) {
      auto const found = places->find(name);
      lowrank::require(found != places->end() && found->second.is_linear(), "smollm2::calibrated",
                       "no linear weight is called ", name);
      return of(found->second.what, found->second.layer);
    };
  }
  [[nodiscard]] index_t bytes() const noexcept {
    index_t sum = 0;
    for (auto const* const all : {&inputs_, &gradients_})
      for (auto const& one : *all) sum += one.bytes();
    return sum;
  }

 private:
  using role = llama::role;
  inline static std::vector<std::vector<role>> const groups{
      {role::query, role::key, role::value}, {role::attention_output}, {role::gate, role::up}, {role::down}};

  llama::config config_;
  looking_at what_;
  std::vector<lowrank::activation_statistics> inputs_, gradients_;
};

}  // namespace smollm2
