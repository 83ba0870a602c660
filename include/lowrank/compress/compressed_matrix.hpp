/// @file
/// What compression makes of one matrix.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <variant>

#include "lowrank/core/buffer.hpp"
#include "lowrank/factor/factor_pair.hpp"
#include "lowrank/factor/format.hpp"
#include "lowrank/factor/pivoted.hpp"

namespace lowrank {

/// WeLore's two kinds of matrices: those cut deeply go on learning in their factors, the others are frozen.
enum class component_kind : std::uint8_t { lrc, n_lrc };
[[nodiscard]] constexpr std::string_view name(component_kind kind) noexcept {
  return kind == component_kind::lrc ? "LRC" : "N-LRC";
}

/// What a file has to say about a matrix for a reload to need nothing else.
struct matrix_plan {
  std::string name;  ///< of the matrix in the model it comes from, as in "model.layers.0.mlp.up_proj.weight"
  extents shape;
  index_t rank{};  ///< min(m, n) where nothing was cut
  storage_form form{storage_form::dense};
  component_kind kind{component_kind::n_lrc};

  [[nodiscard]] bool is_cut() const noexcept { return rank < std::min(shape.rows, shape.cols); }
  /// Numbers stored, biases and orders of rows aside.
  [[nodiscard]] index_t parameters() const noexcept { return stored_parameters(shape, rank, form); }
  friend bool operator==(matrix_plan const&, matrix_plan const&) = default;
};

/// A dense matrix, with a bias of one number an output or none.
struct dense_matrix {
  matrix<float> weight;
  std::vector<float> bias;
};

/// One compressed matrix and its plan, whose form says which alternative is held.
struct compressed_matrix {
  matrix_plan plan;
  std::variant<dense_matrix, factor_pair, pivoted_pair> weight;

  [[nodiscard]] std::vector<float> const& bias() const noexcept {
    return std::visit([](auto const& w) -> std::vector<float> const& { return w.bias; }, weight);
  }
};

}  // namespace lowrank
