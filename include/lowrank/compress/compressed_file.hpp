/// @file
/// Compressed models as safetensors files: names, forms, ranks and kinds of the matrices are in the header, so that a
/// reload needs nothing else.
///
/// The matrix "x.weight" is kept, by its form, as
/// | form | tensors |
/// | --- | --- |
/// | dense | x.weight m x n |
/// | factors | x.U.weight m x r, x.V.weight r x n |
/// | pivoted | x.pivot_rows.weight r x n, x.coefficients.weight (m - r) x r, x.row_order I32 m: first the pivots' rows |
/// and, where it has one, x.bias m. Everything else of the model is as it was. Metadata: "lowrank.compressed" = "1", and
/// "lowrank.matrix.x.weight" = "form=..., rank=..., rows=..., cols=..., kind=LRC|N-LRC" for each matrix.
#pragma once

#include <cstring>
#include <map>
#include <sstream>

#include "lowrank/compress/compressed_matrix.hpp"
#include "lowrank/compress/matrix_collection.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/optim/options.hpp"

namespace lowrank {

inline constexpr std::string_view compressed_key = "lowrank.compressed";
inline constexpr std::string_view matrix_key = "lowrank.matrix.";

/// One entry of the header.
[[nodiscard]] inline std::string to_text(matrix_plan const& plan) {
  std::ostringstream out;
  out << "form=" << name(plan.form) << ", rank=" << plan.rank << ", rows=" << plan.shape.rows
      << ", cols=" << plan.shape.cols << ", kind=" << name(plan.kind);
  return out.str();
}
/// Its inverse. Throws: argument_error, io_error for what no pass writes.
[[nodiscard]] inline matrix_plan matrix_plan_from(std::string_view matrix, std::string_view text) {
  option_list options{text};
  matrix_plan out;
  out.name = matrix;
  out.form = options.take_choice<storage_form>(
      "form", {{"dense", storage_form::dense}, {"factors", storage_form::factors}, {"pivoted", storage_form::pivoted}},
      storage_form::dense);
  out.rank = options.take("rank", index_t{-1});
  out.shape = {options.take("rows", index_t{-1}), options.take("cols", index_t{-1})};
  out.kind = options.take_choice<component_kind>(
      "kind", {{"LRC", component_kind::lrc}, {"N-LRC", component_kind::n_lrc}}, component_kind::n_lrc);
  options.require_empty("compressed_file");
  constexpr index_t limit = index_t{1} << 31;
  require<io_error>(out.shape.rows > 0 && out.shape.cols > 0 && out.shape.rows < limit && out.shape.cols < limit &&
                        out.rank > 0 && out.rank <= std::min(out.shape.rows, out.shape.cols),
                    "compressed_file", "\"", matrix, "\" cannot have rank ", out.rank, " as ", out.shape);
  return out;
}

/// The tensors of a matrix. `has_bias`: whether there is one more, of m numbers.
enum class bias_tensor : std::uint8_t { absent, present };
[[nodiscard]] inline std::vector<tensor_spec> tensors_of(matrix_plan const& plan, bias_tensor bias) {
  std::string const module = module_name(plan.name);
  auto const [m, n] = plan.shape;
  index_t const r = plan.rank;
  std::vector<tensor_spec> out;
  if (plan.form == storage_form::dense) out = {{plan.name, dtype::f32, {m, n}}};
  if (plan.form == storage_form::factors)
    out = {{module + ".U.weight", dtype::f32, {m, r}}, {module + ".V.weight", dtype::f32, {r, n}}};
  if (plan.form == storage_form::pivoted)
    out = {{module + ".pivot_rows.weight", dtype::f32, {r, n}},
           {module + ".coefficients.weight", dtype::f32, {m - r, r}},
           {module + ".row_order", dtype::i32, {m}}};
  if (bias == bias_tensor::present) out.push_back({module + ".bias", dtype::f32, {m}});
  return out;
}
/// The bytes of those tensors, in the same order. Valid as long as `matrix`.
[[nodiscard]] inline std::vector<tensor_source> sources_of(compressed_matrix const& matrix) {
  auto const bytes = [](auto const& values) {
    return std::as_bytes(std::span{values.data(), static_cast<std::size_t>(values.size())});
  };
  auto const of_matrix = [](lowrank::matrix<float> const& values) {
    return std::as_bytes(std::span{values.data(), static_cast<std::size_t>(values.shape().size())});
  };
  std::vector<std::span<std::byte const>> parts;
  if (auto const* const w = std::get_if<dense_matrix>(&matrix.weight)) parts.push_back(of_matrix(w->weight));
  if (auto const* const w = std::get_if<factor_pair>(&matrix.weight)) {
    parts.push_back(of_matrix(w->u));
    parts.push_back(of_matrix(w->v));
  }
  if (auto const* const w = std::get_if<pivoted_pair>(&matrix.weight)) {
    parts.push_back(of_matrix(w->rows));
    parts.push_back(of_matrix(w->coefficients));
    parts.push_back(bytes(w->order));
  }
  bool const has_bias = !matrix.bias().empty();
  if (has_bias) parts.push_back(bytes(matrix.bias()));
  auto specs = tensors_of(matrix.plan, has_bias ? bias_tensor::present : bias_tensor::absent);
  std::vector<tensor_source> out;
  for (std::size_t i = 0; i < specs.size(); ++i) out.push_back({std::move(specs[i]), parts.at(i)});
  return out;
}

/// The plans in the header of a compressed file, by name.
/// Throws: io_error where it is no compressed file, or says what cannot be.
[[nodiscard]] inline std::map<std::string, matrix_plan, std::less<>> compressed_plans(safetensors_reader const& file) {
  auto const& metadata = file.metadata();
  auto const version = metadata.find(compressed_key);
  require<io_error>(version != metadata.end() && version->second == "1", "compressed_file", file.path().string(),
                    " is not a compressed model: \"", compressed_key, "\" must be \"1\"");
  std::map<std::string, matrix_plan, std::less<>> out;
  for (auto const& [key, text] : metadata) {
    if (!key.starts_with(matrix_key)) continue;
    std::string const matrix = key.substr(matrix_key.size());
    try {
      out.emplace(matrix, matrix_plan_from(matrix, text));
    } catch (argument_error const& e) {
      throw io_error{
          detail::join("lowrank::compressed_file: ", file.path().string(), ": \"", matrix, "\": ", e.what())};
    }
  }
  return out;
}

/// One matrix of a compressed file, as its plan says.
/// Throws: io_error, shape_error where tensors are missing or have other shapes; an order of rows that is none is refused.
[[nodiscard]] inline compressed_matrix read_compressed(safetensors_reader const& file, matrix_plan const& plan) {
  std::string const module = module_name(plan.name);
  auto const [m, n] = plan.shape;
  auto const read = [&](std::string const& tensor, extents shape) {
    matrix<float> out{shape};
    file.read_matrix(tensor, out.view());
    return out;
  };
  std::vector<float> bias;
  if (std::string const tensor = module + ".bias"; file.find(tensor) != nullptr) {
    bias.resize(static_cast<std::size_t>(m));
    file.read_matrix(tensor, row_major(bias.data(), {1, m}));
  }
  if (plan.form == storage_form::dense) return {plan, dense_matrix{read(plan.name, plan.shape), std::move(bias)}};
  if (plan.form == storage_form::factors) {
    factor_pair pair;
    pair.u = read(module + ".U.weight", {m, plan.rank});
    pair.v = read(module + ".V.weight", {plan.rank, n});
    pair.bias = std::move(bias);
    return {plan, std::move(pair)};
  }
  pivoted_pair pair;
  pair.rows = read(module + ".pivot_rows.weight", {plan.rank, n});
  pair.coefficients = read(module + ".coefficients.weight", {m - plan.rank, plan.rank});
  std::string const order = module + ".row_order";
  require<io_error>(file.matrix_shape(order).size() == m, "compressed_file", "\"", order, "\" must have ", m,
                    " entries, got ", file.matrix_shape(order).size());
  pair.order.resize(static_cast<std::size_t>(m));
  file.read(order, std::span{pair.order});
  std::vector<char> seen(static_cast<std::size_t>(m));
  for (auto const row : pair.order) {
    bool const is_new = row >= 0 && row < m && std::exchange(seen[static_cast<std::size_t>(row)], 1) == 0;
    require<io_error>(is_new, "compressed_file", "\"", order, "\" must name every row once, got ", row);
  }
  pair.bias = std::move(bias);
  return {plan, std::move(pair)};
}

}  // namespace lowrank
