#pragma once

#include <vector>

#include "../../../examples/llama/model.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"

namespace llama_test {

using llama::index_t;

/// Small, with grouped queries, and no size a multiple of a register.
inline llama::config tiny(llama::output_head head = llama::output_head::own) {
  return {
      .vocabulary = 11, .width = 24, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 10, .sequence = 9, .head = head};
}
/// Large enough for the paths that fill registers, and longer than one block of columns.
inline llama::config wide(llama::output_head head = llama::output_head::own) {
  return {
      .vocabulary = 50, .width = 128, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 96, .sequence = 45, .head = head};
}

/// Pseudo-random tokens with some positions that do not count.
struct batch {
  index_t sequences, length;
  std::vector<std::int32_t> inputs, targets;

  batch(llama::config const& c, index_t sequence_count, index_t text_length, std::uint64_t seed = 5)
      : sequences{sequence_count}, length{text_length} {
    for (index_t i = 0; i < sequences * length; ++i) {
      auto const word = [&](std::uint32_t step) {
        return static_cast<std::int32_t>(
            lowrank::random_word({.seed = seed, .step = step}, static_cast<std::uint64_t>(i)) %
            static_cast<std::uint32_t>(c.vocabulary));
      };
      inputs.push_back(word(0));
      targets.push_back(word(1));
    }
  }
  [[nodiscard]] llama::batch_view view() const { return {{inputs, sequences, length}, targets}; }
};

/// Weights large enough that every part of the model matters, and gains that are not all one.
template <class T>
llama::parameters<T> weights(llama::config const& c, double deviation = 0.25, llama::linear_plan const& plan = {}) {
  lowrank::host_executor exec{{.threads = 1}};
  llama::parameters<T> model{c, plan};
  llama::initialise(exec, model, {.seed = 3, .deviation = deviation});
  for (index_t i = 0; i < model.count(); ++i)
    if (model[i].is_norm())
      for (index_t j = 0; j < model.weight(i).cols; ++j) model.weight(i)(0, j) += static_cast<T>(j % 7 - 3) / T{10};
  return model;
}

/// Every form of a linear weight, beside whole neighbours and beside each other; pivot rows in no order.
inline llama::linear_plan mixed_plan(llama::config const& c) {
  using enum llama::linear_form;
  using llama::bias_term, llama::role;
  llama::linear_plan plan;
  plan.set(role::query, 0, {factors, 5});
  plan.set(role::value, 0, {pivoted, 4, bias_term::added});
  plan.set(role::attention_output, 0, {pivoted, c.width, bias_term::added});
  plan.set(role::down, 0, {factors, 3, bias_term::added});
  plan.set(role::key, 1, {whole, 0, bias_term::added});
  plan.set(role::gate, 1, {pivoted, 7});
  plan.set(role::up, 1, {factors, 2, bias_term::added});
  plan.set(role::down, 1, {pivoted, 6, bias_term::added});
  return plan;
}
template <class T>
void shuffle_orders(llama::parameters<T>& model) {
  for (index_t l = 0; l < model.config().layers; ++l)
    for (index_t i = 0; i < llama::linear_roles; ++i) {
      auto const order = model.order(static_cast<llama::role>(i), l);
      for (std::size_t place = 1; place < order.size(); ++place)
        std::swap(order[place], order[place * 7 % (place + 1)]);
    }
}
/// The same model with every linear weight whole (and the biases it has).
template <class T>
llama::parameters<T> merged(llama::parameters<T> const& model) {
  auto const& c = model.config();
  llama::linear_plan plan;
  for (index_t l = 0; l < c.layers; ++l)
    for (index_t i = 0; i < llama::linear_roles; ++i)
      plan.set(static_cast<llama::role>(i), l, {.bias = model.plan().at(static_cast<llama::role>(i), l).bias});
  llama::parameters<T> out{c, plan};
  for (index_t index = 0; index < out.count(); ++index) {
    auto const& p = out[index];
    auto const to = out.weight(index);
    if (p.part == llama::linear_part::bias || !p.is_linear() || p.what == llama::role::head) {
      auto const from = p.part == llama::linear_part::bias ? model.weight(model.bias_of(p.what, p.layer))
                                                           : model.weight(p.what, p.layer);
      std::copy(from.data, from.data + from.size(), to.data);
      continue;
    }
    auto const w = model.linear(p.what, p.layer);
    index_t const r = w.right.rows;
    for (index_t i = 0; i < to.rows; ++i)
      for (index_t j = 0; j < to.cols; ++j) {
        bool const pivot = w.form == llama::linear_form::pivoted && i < r;
        index_t const row = w.form == llama::linear_form::pivoted ? w.order[static_cast<std::size_t>(i)] : i;
        index_t const of_left = w.form == llama::linear_form::pivoted ? i - r : i;
        T sum = w.form == llama::linear_form::whole ? w.left(i, j) : pivot ? w.right(i, j) : T{};
        if (w.form != llama::linear_form::whole && !pivot)
          for (index_t k = 0; k < r; ++k) sum += w.left(of_left, k) * w.right(k, j);
        to(row, j) = sum;
      }
  }
  return out;
}

/// ‖A - B‖_F / ‖B‖_F.
template <class A, class B>
double relative_distance(lowrank::matrix_view<A> a, lowrank::matrix_view<B> b) {
  double difference = 0, size = 0;
  for (index_t i = 0; i < b.rows; ++i)
    for (index_t j = 0; j < b.cols; ++j) {
      double const x = static_cast<double>(a(i, j)), y = static_cast<double>(b(i, j));
      difference += (x - y) * (x - y);
      size += y * y;
    }
  return std::sqrt(difference / size);
}

}  // namespace llama_test
