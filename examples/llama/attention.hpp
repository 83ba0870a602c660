/// @file
/// Causal grouped-query attention with rotary positions: one task for each key head of each sequence.
#pragma once

#include "activations.hpp"
#include "exponential.hpp"
#include "rotary.hpp"
#include "small_product.hpp"

namespace llama {

namespace detail {

/// The parts of one (sequence, key head) task, `length` tokens high.
template <class T>
struct head_task {
  activations<T>& memory;
  config const& c;
  typename activations<T>::layer const& layer;
  index_t first_token, sequence, group;

  head_task(activations<T>& all, typename activations<T>::layer const& part, index_t task)
      : memory{all},
        c{all.config()},
        layer{part},
        first_token{task / c.kv_heads * all.length()},
        sequence{task / c.kv_heads},
        group{task % c.kv_heads} {}

  [[nodiscard]] view<T> rows(view<T> of, index_t from) const noexcept {
    return of.sub({first_token, first_token + memory.length(), from, from + c.head_width()});
  }
  [[nodiscard]] index_t first_head() const noexcept { return group * c.group(); }
  [[nodiscard]] view<T> query(index_t head) const noexcept {
    return rows(layer.query_key_value, head * c.head_width());
  }
  [[nodiscard]] view<T> key() const noexcept { return rows(layer.query_key_value, c.width + group * c.head_width()); }
  [[nodiscard]] view<T> value() const noexcept {
    return rows(layer.query_key_value, c.width + c.kv_width() + group * c.head_width());
  }
  [[nodiscard]] view<T> probabilities(index_t head) const noexcept {
    index_t const n = memory.length(), padded = memory.padded_length();
    return lowrank::row_major(layer.probabilities + (sequence * c.heads + head) * n * padded, {n, padded});
  }
  void turn(view<T> x, turning way) const noexcept {
    for (index_t t = 0; t < x.rows; ++t)
      rotate(x.data + t * x.row_stride, x.cols, memory.cosines(t), memory.sines(t), c.rotary, way);
  }
};

template <class T>
[[nodiscard]] T attention_scale(config const& c) noexcept {
  return static_cast<T>(1 / std::sqrt(static_cast<double>(c.head_width())));
}

/// Columns of a block of rows that ends before `row_end`, rounded up to what a small product takes at once.
[[nodiscard]] inline index_t causal_columns(index_t row_end, index_t padded) noexcept {
  return std::min(padded, (row_end + 31) / 32 * 32);
}

/// Row `t` of scores becomes softmax(scale * scores) over columns 0 ... t; columns t+1 ... end-1 become 0.
template <class T>
void causal_softmax(T* __restrict row, index_t t, index_t end, T scale) noexcept {
  T const top = largest<T>(row, t + 1);
  T const share = T{1} / exponentials<T>(row, t + 1, top, scale);
  for (index_t j = t + 1; j < end; ++j) row[j] = T{};
  for (index_t j = 0; j <= t; ++j) row[j] *= share;
}

/// Numbers of T that the tasks of a worker need besides the activations.
[[nodiscard]] inline index_t attention_scratch(index_t head_width, index_t length, index_t padded) noexcept {
  return head_width * padded + head_width * length + block_rows * padded;
}
template <class T, class Executor>
void require_attention_scratch(Executor& exec, activations<T> const& memory) {
  index_t const needed = attention_scratch(memory.config().head_width(), memory.length(), memory.padded_length()) *
                         static_cast<index_t>(sizeof(T));
  lowrank::require<lowrank::state_error>(exec.worker_bytes() >= needed, "llama::attention",
                                         "needs host_options::worker_bytes of at least ", needed, ", got ",
                                         exec.worker_bytes());
}

}  // namespace detail

/// mixed = softmax(Q Kᵀ / sqrt(head width)) V for every head.
/// Ensures: query and key are rotated; the probabilities are kept.
template <class Executor, class T>
void attention(Executor& exec, activations<T>& memory, typename activations<T>::layer const& layer) {
  detail::require_attention_scratch(exec, memory);
  auto const& c = memory.config();
  index_t const n = memory.length(), padded = memory.padded_length();
  T const scale = detail::attention_scale<T>(c);
  exec.parallel(memory.sequences() * c.kv_heads, [&](index_t number, int worker) {
    detail::head_task<T> const task{memory, layer, number};
    auto const key = task.key();
    view<T const> const value = task.value();
    auto const key_columns =
        lowrank::row_major(reinterpret_cast<T*>(exec.worker_memory(worker)), {c.head_width(), padded});
    task.turn(key, turning::forward);
    transpose_padded<T>(key, key_columns);
    for (index_t head = task.first_head(); head < task.first_head() + c.group(); ++head) {
      auto const query = task.query(head), probabilities = task.probabilities(head);
      auto const mixed = task.rows(layer.mixed, head * c.head_width());
      task.turn(query, turning::forward);
      for (index_t i = 0; i < n; i += block_rows) {
        index_t const end = std::min(n, i + block_rows);
        auto const scores = probabilities.sub({i, end, 0, detail::causal_columns(end, padded)});
        small_product<T>(query.row_range(i, end), key_columns.col_range(0, scores.cols), scores, writing::overwrite);
        for (index_t t = i; t < end; ++t) detail::causal_softmax(&probabilities(t, 0), t, end, scale);
        small_product<T>(scores.col_range(0, end), value.row_range(0, end), mixed.row_range(i, end),
                         writing::overwrite);
      }
    }
  });
}

/// Gradient of `attention`: query, key and value become their gradients. The probabilities are used up.
/// Shapes: d_mixed T x width.
template <class Executor, class T>
void attention_backward(Executor& exec, activations<T>& memory, typename activations<T>::layer const& layer,
                        view<T> d_mixed) {
  detail::require_attention_scratch(exec, memory);
  auto const& c = memory.config();
  index_t const n = memory.length(), padded = memory.padded_length(), width = c.head_width();
  T const scale = detail::attention_scale<T>(c);
  exec.parallel(memory.sequences() * c.kv_heads, [&](index_t number, int worker) {
    detail::head_task<T> const task{memory, layer, number};
    auto const key = task.key(), value = task.value();
    T* const scratch = reinterpret_cast<T*>(exec.worker_memory(worker));
    auto const value_columns = lowrank::row_major(scratch, {width, padded});
    auto const d_key = lowrank::row_major(scratch + width * padded, {n, width});
    T* const d_rows = scratch + width * (padded + n);
    transpose_padded<T>(value, value_columns);
    for (index_t head = task.first_head(); head < task.first_head() + c.group(); ++head) {
      auto const how = head == task.first_head() ? writing::overwrite : writing::add;
      auto const query = task.query(head), probabilities = task.probabilities(head);
      view<T const> const upstream = task.rows(d_mixed, head * width);
      for (index_t j = 0; j < n; j += block_rows) {
        index_t const end = std::min(n, j + block_rows);
        small_product<T>(probabilities.sub({j, n, j, end}).t(), upstream.row_range(j, n), value.row_range(j, end), how);
      }
      // dS = P ∘ (dP - rowsum(dP ∘ P)) takes the place of P, block by block.
      for (index_t i = 0; i < n; i += block_rows) {
        index_t const end = std::min(n, i + block_rows), cols = detail::causal_columns(end, padded);
        small_product<T>(upstream.row_range(i, end), value_columns.col_range(0, cols),
                         lowrank::matrix_view<T>{d_rows, end - i, cols, padded, 1}, writing::overwrite);
        for (index_t t = i; t < end; ++t) {
          T* const __restrict p = &probabilities(t, 0);
          T const* const __restrict dp = d_rows + (t - i) * padded;
          T const mean = dot<T>(dp, p, end);
          for (index_t j = 0; j < end; ++j) p[j] *= (dp[j] - mean) * scale;
        }
      }
      for (index_t j = 0; j < n; j += block_rows) {
        index_t const end = std::min(n, j + block_rows);
        small_product<T>(probabilities.sub({j, n, j, end}).t(), query.row_range(j, n), d_key.row_range(j, end), how);
      }
      for (index_t i = 0; i < n; i += block_rows) {
        index_t const end = std::min(n, i + block_rows);
        small_product<T>(probabilities.sub({i, end, 0, end}), key.row_range(0, end), query.row_range(i, end),
                         writing::overwrite);
      }
      task.turn(query, turning::backward);
    }
    task.turn(d_key, turning::backward);
    for (index_t t = 0; t < n; ++t)
      std::copy(d_key.data + t * width, d_key.data + (t + 1) * width, key.data + t * key.row_stride);
  });
}

}  // namespace llama
