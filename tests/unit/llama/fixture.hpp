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
llama::parameters<T> weights(llama::config const& c, double deviation = 0.25) {
  lowrank::host_executor exec{{.threads = 1}};
  llama::parameters<T> model{c};
  llama::initialise(exec, model, {.seed = 3, .deviation = deviation});
  for (index_t i = 0; i < model.count(); ++i)
    if (model[i].is_norm())
      for (index_t j = 0; j < model.weight(i).cols; ++j) model.weight(i)(0, j) += static_cast<T>(j % 7 - 3) / T{10};
  return model;
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
