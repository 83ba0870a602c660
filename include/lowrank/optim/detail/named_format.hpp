#pragma once

#include <variant>

#include "lowrank/basis/store.hpp"
#include "lowrank/optim/options.hpp"

namespace lowrank::detail {

/// The basis formats that have names, chosen at run time so that each composition is compiled once.
struct named_format {
  using fills = slots::basis_format;

  std::variant<format::fp32, format::bf16, format::int8, format::int4> chosen{};
};

template <memory_space Space>
class kept_matrix<named_format, Space> {
 public:
  kept_matrix() = default;
  kept_matrix(index_t rows, index_t capacity, named_format const& f)
      : kept_{std::visit(
            [&]<class F>(F) {
              return any_kept{kept_matrix<F, Space>{rows, capacity}};
            },
            f.chosen)} {}

  [[nodiscard]] static index_t bytes(index_t rows, index_t r, named_format const& f) noexcept {
    return std::visit([&]<class F>(F) { return kept_matrix<F, Space>::bytes(rows, r); }, f.chosen);
  }
  [[nodiscard]] static index_t open_bytes(index_t rows, index_t r, named_format const& f) noexcept {
    return std::visit([&]<class F>(F) { return kept_matrix<F, Space>::open_bytes(rows, r); }, f.chosen);
  }
  template <executor E>
  void assign(E& exec, side s, const_view_of<E> p) {
    std::visit([&](auto& kept) { kept.assign(exec, s, p); }, kept_);
  }
  template <executor E>
  [[nodiscard]] const_view_of<E> open(E& exec, side s, extents shape) const {
    return std::visit([&](auto const& kept) { return kept.open(exec, s, shape); }, kept_);
  }
  template <class F>  // Written out: a CUDA compiler loses the members behind a friend with an `auto` parameter
  friend void visit_state(kept_matrix& m, F&& f) {
    std::visit([&](auto& kept) { visit_state(kept, f); }, m.kept_);
  }

 private:
  using any_kept = std::variant<kept_matrix<format::fp32, Space>, kept_matrix<format::bf16, Space>,
                                kept_matrix<format::int8, Space>, kept_matrix<format::int4, Space>>;
  any_kept kept_;
};

/// basis_format=..., or as Q-GaLore spells it: proj_quant and proj_bits, or quant and quant_n_bit.
[[nodiscard]] inline named_format take_format(option_list& o, named_format usual) {
  named_format out = usual;
  auto const given = o.take("basis_format", std::string_view{});
  auto const either = [&](std::string_view script, std::string_view group) {
    auto const value = o.take(script, std::string_view{});
    return value.empty() ? o.take(group, std::string_view{}) : value;
  };
  auto const bits = either("proj_bits", "quant_n_bit"), size = either("proj_group_size", "quant_group_size");
  auto const quantized = either("proj_quant", "quant");
  require(given.empty() || (bits.empty() && quantized.empty()), "by_name",
          "give basis_format or proj_bits, not both: they say the same");
  require(size.empty() || size == "256", "by_name", "proj_group_size is 256, got ", size);
  option_list one;
  if (!quantized.empty()) one.set("proj_quant", quantized);
  bool const wanted = one.take_switch("proj_quant", bits.empty() ? "false" : "true");
  if (!quantized.empty() && !wanted) return {};
  if (!bits.empty() || wanted) {
    require(bits.empty() || bits == "4" || bits == "8", "by_name", "proj_bits must be 4 or 8, got ", bits);
    if (bits == "8") out.chosen = format::int8{};
    else out.chosen = format::int4{};
  }
  if (!given.empty()) {
    option_list named;
    named.set("basis_format", given);
    using all = decltype(named_format::chosen);
    out.chosen = named.take_choice<all>(
        "basis_format",
        {{"fp32", format::fp32{}}, {"bf16", format::bf16{}}, {"int8", format::int8{}}, {"int4", format::int4{}}},
        out.chosen);
  }
  return out;
}

}  // namespace lowrank::detail
