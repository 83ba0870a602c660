/// @file
/// Where matrices to compress come from: memory, or a file read one matrix at a time.
#pragma once

#include <concepts>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/core/view.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/spectrum/statistics.hpp"

namespace lowrank {

/// Numbered matrices with names. `read(i, out)` fills an m x n fp32 view with matrix i; `bias(i)` is empty for a layer without.
template <class S>
concept matrix_collection = requires(S const& source, index_t i, matrix_view<float> out) {
  { source.size() } -> std::convertible_to<index_t>;
  { source.name(i) } -> std::convertible_to<std::string>;
  { source.shape(i) } -> std::same_as<extents>;
  source.read(i, out);
  { source.bias(i) } -> std::same_as<std::vector<float>>;
};

/// Matrices that lie in memory.
class matrices_in_memory {
 public:
  struct entry {
    std::string name;
    matrix_view<float const> weight;
    std::span<float const> bias{};
  };
  explicit matrices_in_memory(std::vector<entry> entries) : entries_{std::move(entries)} {}

  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(entries_.size()); }
  [[nodiscard]] std::string const& name(index_t i) const noexcept { return at(i).name; }
  [[nodiscard]] extents shape(index_t i) const noexcept { return at(i).weight.shape(); }
  void read(index_t i, matrix_view<float> out) const {
    auto const w = at(i).weight;
    require<shape_error>(w.shape() == out.shape(), "matrices_in_memory", "\"", at(i).name, "\" is ", w.shape(),
                         ", the matrix to read it into ", out.shape());
    for (index_t r = 0; r < w.rows; ++r)
      for (index_t c = 0; c < w.cols; ++c) out(r, c) = w(r, c);
  }
  [[nodiscard]] std::vector<float> bias(index_t i) const { return {at(i).bias.begin(), at(i).bias.end()}; }

 private:
  [[nodiscard]] entry const& at(index_t i) const noexcept { return entries_[static_cast<std::size_t>(i)]; }
  std::vector<entry> entries_;
};
static_assert(matrix_collection<matrices_in_memory>);

/// "x.weight" is "x"; other names stay.
[[nodiscard]] inline std::string module_name(std::string_view matrix) {
  constexpr std::string_view suffix = ".weight";
  return std::string{matrix.ends_with(suffix) ? matrix.substr(0, matrix.size() - suffix.size()) : matrix};
}

/// Matrices of a safetensors file that must outlive this.
class matrices_in_file {
 public:
  /// Those of two dimensions that `wanted` says yes to, in the order of the file.
  matrices_in_file(safetensors_reader const& file, std::function<bool(std::string_view)> const& wanted) : file_{&file} {
    for (auto const& t : file.tensors())
      if (t.shape.size() == 2 && wanted(t.name)) names_.push_back(t.name);
  }

  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(names_.size()); }
  [[nodiscard]] std::string const& name(index_t i) const noexcept { return names_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] extents shape(index_t i) const { return file_->matrix_shape(name(i)); }
  void read(index_t i, matrix_view<float> out) const { file_->read_matrix(name(i), out); }
  [[nodiscard]] std::vector<float> bias(index_t i) const {
    std::string const bias = module_name(name(i)) + ".bias";
    if (!name(i).ends_with(".weight") || file_->find(bias) == nullptr) return {};
    auto const shape = file_->matrix_shape(bias);
    require<shape_error>(shape.size() == this->shape(i).rows, "matrices_in_file", "\"", bias, "\" has ", shape.size(),
                         " numbers, its matrix ", this->shape(i).rows, " rows");
    std::vector<float> out(static_cast<std::size_t>(shape.size()));
    file_->read_matrix(bias, row_major(out.data(), shape));
    return out;
  }

 private:
  safetensors_reader const* file_;
  std::vector<std::string> names_;
};
static_assert(matrix_collection<matrices_in_file>);

/// What calibration has seen of one matrix; null where it was not looked at.
struct layer_statistics {
  activation_statistics const* inputs{};
  activation_statistics const* output_gradients{};  ///< gradients of the loss, one row a token
};
/// The same for all, by name. Valid until the next call.
using calibration = std::function<layer_statistics(std::string_view name)>;

}  // namespace lowrank
