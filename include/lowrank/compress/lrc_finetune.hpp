/// @file
/// Which tensors of a compressed model learn: the factors of low-rank components, and little else.
#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "lowrank/compress/compressed_file.hpp"

namespace lowrank {

/// Vectors beside the matrices: gains of norms, biases of layers that were not cut.
enum class vector_training : std::uint8_t { frozen, trained };

/// What of a model learns when only its low-rank components do: tensors of LRC matrices, as `tensors_of` names them; of the
/// others none, and everything that is no matrix of the pass (embeddings, head) neither, except vectors by choice. What does
/// not learn needs no gradient and no optimizer state, and a matrix of it may be kept in fewer bits (adapt::frozen_matrix).
/// Reference: Jaiswal et al., "From GaLore to WeLore" (arXiv 2407.11239), section 4: WeLore-PEFT.
class lrc_mask {
 public:
  explicit lrc_mask(std::span<matrix_plan const> plans, vector_training vectors = vector_training::trained)
      : vectors_{vectors} {
    for (auto const& plan : plans)
      for (auto const& tensor : tensors_of(plan, bias_tensor::present)) kinds_[tensor.name] = plan.kind;
  }
  /// Whether the tensor of that name and shape learns. A vector has one row, or one dimension.
  [[nodiscard]] bool trains(std::string_view name, extents shape) const {
    auto const found = kinds_.find(name);
    if (found != kinds_.end() && found->second == component_kind::lrc) return !name.ends_with(".row_order");
    return vectors_ == vector_training::trained && std::min(shape.rows, shape.cols) == 1;
  }

 private:
  std::map<std::string, component_kind, std::less<>> kinds_;
  vector_training vectors_;
};

}  // namespace lowrank
