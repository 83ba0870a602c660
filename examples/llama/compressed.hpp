/// @file
/// Compressed matrices as linear weights of the model.
#pragma once

#include "lowrank/compress/compressed_file.hpp"
#include "parameters.hpp"

namespace llama {

/// The kind of linear weight that a compressed matrix makes.
[[nodiscard]] inline linear_kind kind_of(lowrank::matrix_plan const& plan, bias_term bias) {
  auto const form = plan.form == lowrank::storage_form::dense     ? linear_form::whole
                    : plan.form == lowrank::storage_form::factors ? linear_form::factors
                                                                  : linear_form::pivoted;
  return {form, form == linear_form::whole ? 0 : plan.rank, bias};
}

/// The parameter that a compressed matrix replaces. Throws: shape_error where the model has no such weight.
[[nodiscard]] inline parameter const& replaced_by(std::span<parameter const> list, lowrank::matrix_plan const& plan) {
  auto const found = std::ranges::find(list, plan.name, &parameter::name);
  lowrank::require<lowrank::shape_error>(
      found != list.end() && found->is_linear() && found->what != role::head && found->shape == plan.shape,
      "llama::replaced_by", "the model has no linear weight \"", plan.name, "\" of ", plan.shape);
  return *found;
}

namespace detail {
template <class T>
void fill(view<T> to, lowrank::matrix<T> const& from) {
  lowrank::require<lowrank::shape_error>(to.shape() == from.shape(), "llama::put", "needs ", to.shape(), ", got ",
                                         from.shape());
  std::copy(from.data(), from.data() + from.shape().size(), to.data);
}
}  // namespace detail

/// A compressed matrix into a model whose plan has its form.
inline void put(parameters<float>& model, lowrank::compressed_matrix const& matrix, parameter const& replaced) {
  auto const left = index_of(model.config(), replaced.what, replaced.layer);
  auto const right = model.right_of(replaced.what, replaced.layer), bias = model.bias_of(replaced.what, replaced.layer);
  if (auto const* const w = std::get_if<lowrank::dense_matrix>(&matrix.weight)) {
    detail::fill(model.weight(left), w->weight);
  } else if (auto const* const pair = std::get_if<lowrank::factor_pair>(&matrix.weight)) {
    detail::fill(model.weight(left), pair->u);
    detail::fill(model.weight(right), pair->v);
  } else {
    auto const& pivots = std::get<lowrank::pivoted_pair>(matrix.weight);
    detail::fill(model.weight(left), pivots.coefficients);
    detail::fill(model.weight(right), pivots.rows);
    std::ranges::copy(pivots.order, model.order(replaced.what, replaced.layer).begin());
  }
  auto const& values = matrix.bias();
  lowrank::require<lowrank::shape_error>(values.empty() == (bias < 0), "llama::put", "\"", matrix.plan.name,
                                         "\" must have a bias where the model has one");
  if (bias >= 0) std::ranges::copy(values, model.weight(bias).data);
}

/// The same model with other forms of its linear weights: `matrices` replace theirs, everything else is copied.
[[nodiscard]] inline parameters<float> with_matrices(parameters<float> const& model,
                                                     std::span<lowrank::compressed_matrix const> matrices) {
  auto const list = parameter_list(model.config());
  linear_plan plan = model.plan();
  for (auto const& m : matrices) {
    auto const& p = replaced_by(list, m.plan);
    plan.set(p.what, p.layer, kind_of(m.plan, m.bias().empty() ? bias_term::none : bias_term::added));
  }
  parameters<float> out{model.config(), plan};
  for (index_t i = 0; i < out.count(); ++i) {
    auto const same = std::ranges::find(model.list(), out[i].name, &parameter::name);
    if (same == model.list().end() || same->shape != out[i].shape) continue;
    auto const from = model.weight(same - model.list().begin());
    std::copy(from.data, from.data + from.size(), out.weight(i).data);
  }
  for (auto const& m : matrices) put(out, m, replaced_by(list, m.plan));
  return out;
}

/// Writes `model` with `matrices` in place of theirs, in the form of `compress_file`. The others are listed as dense.
/// Throws: io_error; argument_error for a model that is not whole.
inline void save_compressed(std::filesystem::path const& path, parameters<float> const& model,
                            std::span<lowrank::compressed_matrix const> matrices) {
  std::vector<lowrank::tensor_source> sources;
  lowrank::file_metadata metadata{{std::string{lowrank::compressed_key}, "1"}};
  auto const list = model.list();
  for (auto const& m : matrices) {
    (void)replaced_by(list, m.plan);
    auto more = lowrank::sources_of(m);
    std::ranges::move(more, std::back_inserter(sources));
    metadata[std::string{lowrank::matrix_key} + m.plan.name] = to_text(m.plan);
  }
  for (index_t i = 0; i < model.count(); ++i) {
    auto const& p = model[i];
    lowrank::require(p.part == linear_part::whole, "llama::save_compressed", "needs a model of whole weights, got ",
                     p.name);
    if (std::ranges::any_of(matrices, [&](auto const& m) { return m.plan.name == p.name; })) continue;
    auto const w = model.weight(i);
    std::vector<index_t> shape{w.rows, w.cols};
    if (p.is_norm()) shape = {w.cols};
    sources.push_back(
        {{p.name, lowrank::dtype::f32, shape}, std::as_bytes(std::span{w.data, static_cast<std::size_t>(w.size())})});
    if (!p.is_linear() || p.what == role::head) continue;
    lowrank::matrix_plan const dense{p.name, p.shape, std::min(p.shape.rows, p.shape.cols)};
    metadata[std::string{lowrank::matrix_key} + p.name] = to_text(dense);
  }
  lowrank::write_safetensors(path, sources, metadata);
}

/// A compressed model file, as `compress_file` leaves it, into the model whose shape is `c`.
/// Throws: io_error, shape_error where the file holds another model.
[[nodiscard]] inline parameters<float> load_compressed(lowrank::safetensors_reader const& file, config const& c) {
  auto const list = parameter_list(c);
  auto const plans = lowrank::compressed_plans(file);
  linear_plan plan;
  for (auto const& [name, what] : plans) {
    auto const& p = replaced_by(list, what);
    bool const biased = file.find(lowrank::module_name(name) + ".bias") != nullptr;
    plan.set(p.what, p.layer, kind_of(what, biased ? bias_term::added : bias_term::none));
  }
  parameters<float> out{c, plan};
  for (index_t i = 0; i < out.count(); ++i) {
    auto const& p = out[i];
    bool const of_plan = std::ranges::any_of(plans, [&](auto const& each) {
      auto const& q = replaced_by(list, each.second);
      return q.what == p.what && q.layer == p.layer;
    });
    if (!of_plan) file.read_matrix(p.name, out.weight(i));
  }
  for (auto const& [name, what] : plans) put(out, lowrank::read_compressed(file, what), replaced_by(list, what));
  return out;
}

}  // namespace llama
