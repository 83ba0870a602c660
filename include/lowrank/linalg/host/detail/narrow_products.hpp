#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "lowrank/core/executor.hpp"
#include "lowrank/linalg/host/detail/partition.hpp"
#include "lowrank/tile/pack.hpp"

namespace lowrank::detail {

// Products C = A B of few columns, a rank's worth: so little is done with an element of A that the copy a library makes
// of it first takes as long as the product. Here A is read where it lies, once.

/// Columns that are called few, and registers of them that are worked on together.
inline constexpr index_t narrow_columns = 64;
inline constexpr int strip_registers = pack::width == 16 ? 3 : 2;
/// Rows or columns of A that are worked on together, beside that many registers of C.
[[nodiscard]] constexpr int held_with(int registers) noexcept {
  if (pack::width == 16) return registers == 1 ? 16 : 24 / registers;
  return registers == 1 ? 8 : 6;
}

/// body(0) ... body(count - 1) with constants for arguments: what they index stays in registers.
template <int Count, class Body>
LOWRANK_INLINE void unrolled(Body const& body) {
  [&]<int... Number>(std::integer_sequence<int, Number...>) { (body(std::integral_constant<int, Number>{}), ...); }
  (std::make_integer_sequence<int, Count>{});
}

/// out (Rows x width) += A B for neighbouring A(i, k), A(i, k + 1); rows of out and B are `Registers` registers.
template <int Rows, int Registers>
void add_rows(float const* a, index_t row_stride, float const* b, index_t depth, float* out) {
  constexpr index_t width = Registers * pack::width;
  std::array<std::array<pack, Registers>, Rows> sum;
  unrolled<Rows>([&](auto i) { sum[i].fill(pack{0.0F}); });
  for (index_t k = 0; k < depth; ++k) {
    std::array<pack, Registers> by;
    unrolled<Registers>([&](auto v) { by[v] = pack::load(b + k * width + v * pack::width); });
    unrolled<Rows>([&](auto i) {
      pack const x{a[i * row_stride + k]};
      unrolled<Registers>([&](auto v) { sum[i][v] = fused_multiply_add(x, by[v], sum[i][v]); });
    });
  }
  unrolled<Rows>([&](auto i) {
    unrolled<Registers>([&](auto v) {
      float* const to = out + i * width + v * pack::width;
      (pack::load(to) + sum[i][v]).store(to);
    });
  });
}
/// out (count x width) += A B for Depth columns of A, neighbouring A(i, k), A(i + 1, k).
template <int Depth, int Registers>
void add_columns(float const* a, index_t col_stride, float const* b, index_t count, float* out) {
  constexpr index_t width = Registers * pack::width;
  std::array<std::array<pack, Registers>, Depth> by;
  unrolled<Depth>(
      [&](auto k) { unrolled<Registers>([&](auto v) { by[k][v] = pack::load(b + k * width + v * pack::width); }); });
  for (index_t i = 0; i < count; ++i) {
    std::array<pack, Registers> sum;
    sum.fill(pack{0.0F});
    unrolled<Depth>([&](auto k) {
      pack const x{a[k * col_stride + i]};
      unrolled<Registers>([&](auto v) { sum[v] = fused_multiply_add(x, by[k][v], sum[v]); });
    });
    unrolled<Registers>([&](auto v) {
      float* const to = out + i * width + v * pack::width;
      (pack::load(to) + sum[v]).store(to);
    });
  }
}

/// Columns of C in strips of equal width, each a number of registers.
struct narrow_strips {
  index_t count, registers, width;

  explicit constexpr narrow_strips(index_t columns) noexcept
      : count{(columns + strip_registers * pack::width - 1) / (strip_registers * pack::width)},
        registers{(columns + count * pack::width - 1) / (count * pack::width)},
        width{registers * pack::width} {}
  [[nodiscard]] constexpr index_t begin(index_t strip) const noexcept { return strip * width; }
};

/// `to` (rows x width) = the columns of b from `first` on, zero beyond the last.
inline void fill_strip(matrix_view<float const> b, index_t first, index_t width, float* to) noexcept {
  index_t const count = std::min(width, b.cols - first);
  for (index_t k = 0; k < b.rows; ++k) std::fill_n(to + k * width + count, width - count, 0.0F);
  if (b.col_stride == 1)
    for (index_t k = 0; k < b.rows; ++k) std::copy_n(&b(k, first), count, to + k * width);
  else
    for (index_t j = 0; j < count; ++j)
      for (index_t k = 0; k < b.rows; ++k) to[k * width + j] = b(k, first + j);
}

/// Columns of A between two visits to a row of C.
inline constexpr index_t narrow_depth = 64, most_narrow_height = 1024;
/// Rows of C that a thread computes at a time: as many as stay in the cache, and more where B is slow to gather.
[[nodiscard]] inline index_t narrow_height(matrix_view<float const> a, matrix_view<float const> b) noexcept {
  if (a.row_stride == 1) return a.rows >= 8192 ? most_narrow_height : a.rows >= 2048 ? 512 : 256;
  return b.col_stride == 1 && b.row_stride <= 2 * b.cols ? 64 : 256;
}

/// Asks for what the next visit to these rows will read: rows lie pages apart, and no processor guesses that many.
inline void fetch_next(matrix_view<float const> rows, index_t begin) noexcept {
  constexpr index_t line = 64 / sizeof(float);
  for (index_t i = 0; i < rows.rows; ++i)
    for (index_t k = begin; k < std::min(rows.cols, begin + narrow_depth); k += line) __builtin_prefetch(&rows(i, k));
}

/// out (a.rows x width) += A times columns of B from `first` on; A has neighbouring columns.
template <int Registers>
void add_narrow_rows(matrix_view<float const> a, matrix_view<float const> b, index_t first, float* out) {
  constexpr int held = held_with(Registers);
  constexpr index_t width = Registers * pack::width;
  std::array<float, narrow_depth * width> strip;
  for (index_t k = 0; k < a.cols; k += narrow_depth) {
    index_t const end = std::min(a.cols, k + narrow_depth);
    fill_strip(b.row_range(k, end), first, width, strip.data());
    index_t i = 0;
    for (; i + held <= a.rows; i += held) {
      fetch_next(a.row_range(i, i + held), end);
      add_rows<held, Registers>(&a(i, k), a.row_stride, strip.data(), end - k, out + i * width);
    }
    for (; i < a.rows; ++i) add_rows<1, Registers>(&a(i, k), 0, strip.data(), end - k, out + i * width);
  }
}
/// The same for A with neighbouring rows and all strips, which lie one after the other: what is read of A stays in the cache.
template <int Registers>
void add_narrow_columns(matrix_view<float const> a, matrix_view<float const> b, narrow_strips strips, float* out) {
  constexpr int held = held_with(Registers);
  constexpr index_t width = Registers * pack::width;
  std::array<float, held * width> few;
  for (index_t k = 0; k < a.cols; k += held) {
    index_t const count = std::min<index_t>(held, a.cols - k);
    for (index_t s = 0; s < strips.count; ++s) {
      float* const to = out + s * a.rows * width;
      fill_strip(b.row_range(k, k + count), strips.begin(s), width, few.data());
      if (count == held) add_columns<held, Registers>(&a(0, k), a.col_stride, few.data(), a.rows, to);
      else
        for (index_t i = 0; i < count; ++i)
          add_columns<1, Registers>(&a(0, k + i), 0, few.data() + i * width, a.rows, to);
    }
  }
}

/// C = alpha A B + beta C on rows of C; `memory` is scratch of a.rows x strips.count x strips.width floats.
template <int Registers>
void narrow_part(float alpha, matrix_view<float const> a, matrix_view<float const> b, float beta, matrix_view<float> c,
                 narrow_strips strips, float* memory) {
  index_t const stretch = a.rows * strips.width;
  std::fill_n(memory, strips.count * stretch, 0.0F);
  if (a.row_stride == 1) add_narrow_columns<Registers>(a, b, strips, memory);
  else
    for (index_t s = 0; s < strips.count; ++s) add_narrow_rows<Registers>(a, b, strips.begin(s), memory + s * stretch);
  scale_tile(beta, c);
  for (index_t i = 0; i < c.rows; ++i)
    for (index_t s = 0; s < strips.count; ++s) {
      float const* const from = memory + s * stretch + i * strips.width - strips.begin(s);
      for (index_t j = strips.begin(s); j < std::min(c.cols, strips.begin(s) + strips.width); ++j)
        c(i, j) += alpha * from[j];
    }
}

/// Whether C = A B has few columns and so many rows that it pays, and A lies as `multiply_narrow` wants it.
[[nodiscard]] inline bool is_narrow(host_executor const& exec, matrix_view<float const> a, extents c) noexcept {
  return pack::width > 1 && c.cols <= narrow_columns && c.cols > 0 && c.rows >= 512 && a.cols >= narrow_depth &&
         (a.row_stride == 1 || a.col_stride == 1) &&
         exec.worker_bytes() >= most_narrow_height * (narrow_columns + strip_registers * pack::width) * 4;
}

/// C = alpha A B + beta C for `is_narrow` ones. What an element is the sum of, and in which order, depends on k alone.
inline void multiply_narrow(host_executor& exec, float alpha, matrix_view<float const> a, matrix_view<float const> b,
                            float beta, matrix_view<float> c) {
  narrow_strips const strips{c.cols};
  index_t const span = narrow_height(a, b);
  exec.parallel((c.rows + span - 1) / span, [&](index_t number, int worker) {
    index_t const begin = number * span, end = std::min(c.rows, begin + span);
    auto* const memory = reinterpret_cast<float*>(exec.worker_memory(worker));
    auto const part = [&](auto registers) {
      narrow_part<registers>(alpha, a.row_range(begin, end), b, beta, c.row_range(begin, end), strips, memory);
    };
    if (strips.registers == 1) part(std::integral_constant<int, 1>{});
    else if (strips.registers == 2) part(std::integral_constant<int, 2>{});
    else part(std::integral_constant<int, strip_registers>{});
  });
}

}  // namespace lowrank::detail
