/// @file
/// A linear layer whose matrix is frozen, and the adapters that take turns on it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/adapt/merge.hpp"

namespace lowrank::adapt {

/// What becomes of the frozen matrix when a change is merged into it.
enum class merged_original : std::uint8_t {
  kept,     ///< beside the merged one: twice the bytes, but the merge can be taken back exactly
  dropped,  ///< the merge is for good
};

/// y = W x + ΔW x: W frozen in any format, ΔW one of several adapters of one type, called by name. Choosing another one, or none,
/// costs nothing and does not touch W. What is refused carries the layer's name.
template <weight_change A>
  requires std::same_as<typename A::value_type, float>
class adapted_linear {
 public:
  using adapter_type = A;

  adapted_linear(std::string name, frozen_matrix&& base) : name_{std::move(name)}, base_{std::move(base)} {}

  [[nodiscard]] std::string const& name() const noexcept { return name_; }
  [[nodiscard]] extents shape() const noexcept { return base_.shape(); }
  /// The frozen matrix, with what is merged into it.
  [[nodiscard]] frozen_matrix const& base() const noexcept { return base_; }
  [[nodiscard]] index_t bytes() const noexcept {
    index_t sum = base_.bytes() + (original_ ? original_->bytes() : 0);
    for (auto const& each : adapters_) sum += each.adapter.bytes();
    return sum;
  }

  // ---- adapters by name
  /// Adds an adapter; it is not selected by that.
  /// Throws: shape_error for another shape than the matrix's, argument_error for a name that is taken or empty.
  void add(std::string adapter_name, A&& adapter) {
    require<shape_error>(adapter.shape() == shape(), caller, quoted(name_), " is ", shape(), ", adapter ",
                         quoted(adapter_name), " is for ", adapter.shape());
    require(!adapter_name.empty() && position(adapter_name) == none, caller, quoted(name_),
            " needs a new name for an adapter, got ", quoted(adapter_name));
    adapters_.push_back({std::move(adapter_name), std::move(adapter)});
  }
  /// Takes an adapter out.
  /// Throws: argument_error where there is none of that name, state_error while it is merged.
  A remove(std::string_view adapter_name) {
    std::size_t const at = existing(adapter_name);
    require<state_error>(at != merged_, caller, quoted(name_), " cannot give away ", quoted(adapter_name),
                         " while it is merged");
    A out = std::move(adapters_[at].adapter);
    adapters_.erase(adapters_.begin() + static_cast<std::ptrdiff_t>(at));
    if (selected_ == at) selected_ = none;
    else if (selected_ != none && selected_ > at) --selected_;
    if (merged_ != none && merged_ > at) --merged_;
    return out;
  }
  /// Uses that adapter from now on.
  /// Throws: argument_error where there is none of that name, state_error while one is merged: the base is not alone then.
  void select(std::string_view adapter_name) {
    std::size_t const at = existing(adapter_name);
    require_unmerged("select another adapter");
    selected_ = at;
  }
  /// The base alone from now on.  Throws: state_error while an adapter is merged.
  void select_none() {
    require_unmerged("do without adapters");
    selected_ = none;
  }
  [[nodiscard]] std::vector<std::string_view> names() const {
    std::vector<std::string_view> out;
    for (auto const& each : adapters_) out.push_back(each.name);
    return out;
  }
  /// The adapter of that name.  Throws: argument_error.
  [[nodiscard]] A& adapter(std::string_view adapter_name) { return adapters_[existing(adapter_name)].adapter; }
  [[nodiscard]] A const& adapter(std::string_view adapter_name) const {
    return adapters_[existing(adapter_name)].adapter;
  }
  /// What is in use beside the base: null for none, and while it is merged.
  [[nodiscard]] A* selected() noexcept { return selected_ == none ? nullptr : &adapters_[selected_].adapter; }
  [[nodiscard]] A const* selected() const noexcept {
    return selected_ == none ? nullptr : &adapters_[selected_].adapter;
  }

  // ---- passes
  /// Numbers that `forward` leaves for `backward`, and scratch that they take.
  [[nodiscard]] index_t kept_size(index_t tokens) const {
    return selected() != nullptr ? selected()->kept_size(tokens) : 0;
  }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const {
    return std::max(base_.workspace_bytes(), selected() != nullptr ? selected()->workspace_bytes(tokens) : 0);
  }
  /// Y = X Wᵀ + X ΔWᵀ.
  /// Shapes: X T x n, Y T x m; kept: kept_size(T) numbers.  Throws: shape_error.
  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<float const> x, std::span<float> kept, matrix_view<float> y,
               pass_info info = {}) const {
    naming(name_, [&] {
      detail::check_forward(caller, shape(), x, kept.size(), kept_size(x.rows), y);
      base_.apply(exec, x, y);
      if (selected() != nullptr) selected()->forward(exec, x, kept, y, info);
    });
  }
  /// Gradients of the selected adapter's tensors, and dX = dY (W + ΔW) + keep dX unless dX is empty. W has no gradient.
  /// Shapes: those of `forward`.  Throws: shape_error, before anything is written.
  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<float const> x, std::span<float const> kept, matrix_view<float const> dy,
                std::span<matrix_view<float> const> gradients, float keep, matrix_view<float> dx, pass_info info = {}) {
    naming(name_, [&] {
      auto const tensors = selected_tensors();
      detail::check_backward(caller, shape(), tensors, x, kept.size(), kept_size(x.rows), dy, gradients, dx);
      if (!dx.empty()) base_.apply_transposed(exec, dy, keep, dx);
      if (selected() != nullptr) selected()->backward(exec, x, kept, dy, gradients, dx, info);
    });
  }

  // ---- merging
  /// Rounds the selected adapter into the base, in the base's format; it remains in the list.
  /// Throws: state_error where none is selected or one is merged already.
  template <std::derived_from<host_executor> E>
  merge_report merge(E& exec, merged_original original = merged_original::kept) {
    require_unmerged("merge");
    require<state_error>(selected_ != none, caller, quoted(name_), " has no adapter selected to merge");
    return naming(name_, [&] {
      auto out = adapt::merge(exec, base_, *selected());
      if (original == merged_original::kept) original_ = std::move(base_);
      base_ = std::move(out.matrix);
      merged_ = std::exchange(selected_, none);
      return out.report;
    });
  }
  /// The name of the adapter that is merged, or an empty one.
  [[nodiscard]] std::string_view merged() const noexcept {
    return merged_ == none ? std::string_view{} : std::string_view{adapters_[merged_].name};
  }
  /// The base as it was, bit for bit, and the adapter selected beside it.
  /// Throws: state_error where nothing is merged, or the original was dropped: subtracting would not give it back.
  void unmerge() {
    require<state_error>(merged_ != none, caller, quoted(name_), " has nothing merged");
    require<state_error>(original_.has_value(), caller, quoted(name_), " cannot take back ",
                         quoted(adapters_[merged_].name), ": the original matrix was not kept");
    base_ = std::move(*original_);
    original_.reset();
    selected_ = std::exchange(merged_, none);
  }

 private:
  static constexpr auto* caller = "adapted_linear";
  static constexpr auto none = static_cast<std::size_t>(-1);
  struct entry {
    std::string name;
    A adapter;
  };
  [[nodiscard]] static std::string quoted(std::string_view text) { return lowrank::detail::join("\"", text, "\""); }
  [[nodiscard]] std::size_t position(std::string_view adapter_name) const noexcept {
    for (std::size_t i = 0; i < adapters_.size(); ++i)
      if (adapters_[i].name == adapter_name) return i;
    return none;
  }
  [[nodiscard]] std::size_t existing(std::string_view adapter_name) const {
    std::size_t const at = position(adapter_name);
    if (at == none) {
      std::string known;
      for (auto const& each : adapters_) known += lowrank::detail::join(" ", each.name);
      require(false, caller, quoted(name_), " has no adapter ", quoted(adapter_name), " but",
              known.empty() ? " none" : known.c_str());
    }
    return at;
  }
  [[nodiscard]] std::vector<tensor<float>> selected_tensors() {
    if (selected() == nullptr) return {};
    auto const all = selected()->tensors();
    return {all.begin(), all.end()};
  }
  void require_unmerged(char const* purpose) const {
    require<state_error>(merged_ == none, caller, quoted(name_), " cannot ", purpose, " while ",
                         merged_ == none ? std::string{} : quoted(adapters_[merged_].name), " is merged");
  }

  std::string name_;
  frozen_matrix base_;
  std::optional<frozen_matrix> original_;  ///< without what is merged
  std::vector<entry> adapters_;
  std::size_t selected_{none}, merged_{none};
};

}  // namespace lowrank::adapt
