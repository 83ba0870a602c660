/// @file
/// Where the gradients of the weights are, and in which of their two forms.
#pragma once

#include "activations.hpp"
#include "lowrank/core/gradient.hpp"

namespace llama {

/// dense: dW = dYᵀ X is computed. factored: it is not, dY and X are handed over. none: the weight is frozen.
enum class gradient_form : std::uint8_t { dense, factored, none };
/// kept: each dense gradient has memory of its own. one_at_a_time: the dense gradients of linear layers share one buffer,
/// which holds one of them while the backward pass reports it.
enum class gradient_storage : std::uint8_t { kept, one_at_a_time };

/// The two factors of dW = dYᵀ X. Valid until the next forward pass.
template <class T>
struct factors {
  view<T const> output_gradient, input;
};

template <class T>
class gradients {
 public:
  /// One form for each parameter; embedding and norm gains cannot be factored.
  /// Throws: argument_error.
  gradients(parameters<T> const& model, std::span<gradient_form const> forms,
            gradient_storage storage = gradient_storage::kept)
      : storage_{storage}, forms_(forms.begin(), forms.end()) {
    auto where = layout_of(model.list(), forms, storage);
    slots_ = std::move(where.slots);
    shares_memory_ = where.largest_shared > 0;
    memory_ = lowrank::buffer<T>{where.own + where.largest_shared};
  }
  /// All dense, except of what is frozen in codes.
  explicit gradients(parameters<T> const& model, gradient_storage storage = gradient_storage::kept)
      : gradients{model, all_dense(model.list()), storage} {}

  [[nodiscard]] gradient_form form(index_t index) const noexcept { return forms_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] gradient_storage storage() const noexcept { return storage_; }
  /// Requires: form(index) is dense. With one_at_a_time, a linear weight's is valid only while it is being reported.
  [[nodiscard]] view<T> dense(index_t index) noexcept {
    auto const& s = slots_[static_cast<std::size_t>(index)];
    return s.offset < 0 ? view<T>{} : lowrank::row_major(memory_.data() + s.offset, s.shape);
  }
  /// Whether some dense gradients live in one buffer, so that micro-batches cannot add to them.
  [[nodiscard]] bool shares_memory() const noexcept { return shares_memory_; }
  [[nodiscard]] index_t bytes() const noexcept { return memory_.bytes(); }
  /// The same without making them.
  [[nodiscard]] static index_t bytes_for(std::span<parameter const> list, std::span<gradient_form const> forms,
                                         gradient_storage storage) {
    auto const where = layout_of(list, forms, storage);
    return (where.own + where.largest_shared) * index_t{sizeof(T)};
  }

 private:
  struct slot {
    index_t offset;
    lowrank::extents shape;
  };
  struct layout {
    std::vector<slot> slots;
    index_t own{}, largest_shared{};  ///< elements
  };
  [[nodiscard]] static std::vector<gradient_form> all_dense(std::span<parameter const> list) {
    std::vector<gradient_form> out;
    for (auto const& p : list)
      out.push_back(p.part == linear_part::frozen ? gradient_form::none : gradient_form::dense);
    return out;
  }
  [[nodiscard]] static index_t rounded(index_t count) noexcept { return (count + 15) / 16 * 16; }
  /// The shared buffer comes last.
  [[nodiscard]] static layout layout_of(std::span<parameter const> list, std::span<gradient_form const> forms,
                                        gradient_storage storage) {
    lowrank::require(forms.size() == list.size(), "llama::gradients", "needs one form for each of ", list.size(),
                     " parameters, got ", forms.size());
    layout out;
    auto const shares = [&](parameter const& p) { return storage == gradient_storage::one_at_a_time && p.is_linear(); };
    for (std::size_t i = 0; i < list.size(); ++i) {
      lowrank::require(forms[i] != gradient_form::factored || list[i].is_linear(), "llama::gradients",
                       "only whole linear weights have factored gradients, got ", list[i].name);
      lowrank::require(forms[i] == gradient_form::none || list[i].part != linear_part::frozen, "llama::gradients",
                       "what is frozen in codes has no gradient, got ", list[i].name);
      out.slots.push_back({-1, list[i].shape});
      if (forms[i] != gradient_form::dense) continue;
      index_t const size = list[i].shape.size();
      if (shares(list[i])) out.largest_shared = std::max(out.largest_shared, size);
      else out.slots.back().offset = std::exchange(out.own, out.own + rounded(size));
    }
    for (std::size_t i = 0; i < list.size(); ++i)
      if (forms[i] == gradient_form::dense && shares(list[i])) out.slots[i].offset = out.own;
    return out;
  }

  gradient_storage storage_;
  std::vector<gradient_form> forms_;
  std::vector<slot> slots_;
  bool shares_memory_{};
  lowrank::buffer<T> memory_;
};

/// The factors that the last backward pass left for whole linear weight `p`.
template <class T>
[[nodiscard]] factors<T> factors_of(activations<T>& memory, parameter const& p) {
  lowrank::require(p.is_linear(), "llama::factors_of", "only linear weights have factors, got ", p.name);
  if (p.what == role::head) return {memory.logits(), memory.final_normed()};
  return {memory.output(p.what, p.layer), memory.input(p.what, p.layer)};
}

/// The same in the library's own type, for its optimizers.
[[nodiscard]] inline lowrank::outer_product<> factored_gradient(activations<float>& memory, parameter const& p) {
  auto const f = factors_of(memory, p);
  return {f.output_gradient, f.input};
}

}  // namespace llama
