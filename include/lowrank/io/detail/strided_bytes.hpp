/// @file
/// How visited values and strided matrices become the packed bytes of a file.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/view.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank::detail {

/// A matrix of which only the size of its elements is known.
struct strided_bytes {
  std::byte const* data;
  index_t element;
  index_t rows, cols, row_stride, col_stride;  // in elements

  template <class T>
  [[nodiscard]] static strided_bytes of(matrix_view<T, host_space> view) noexcept {
    return {reinterpret_cast<std::byte const*>(view.data),
            index_t{sizeof(T)},
            view.rows,
            view.cols,
            view.row_stride,
            view.col_stride};
  }

  /// f(bytes) with all elements, row after row.
  template <class F>
  void for_each_piece(F&& f) const {
    walk([&](std::byte* at, index_t run, std::span<std::byte> gathered) {
      if (gathered.empty()) return f(std::span<std::byte const>{at, static_cast<std::size_t>(run * element)});
      for (index_t i = 0; i < run; ++i) copy(gathered.data() + i * element, at + i * col_stride * element);
      f(std::span<std::byte const>{gathered});
    });
  }
  /// f(bytes) fills all elements, row after row. Requires: made of a view whose elements may change.
  template <class F>
  void fill_pieces(F&& f) const {
    walk([&](std::byte* at, index_t run, std::span<std::byte> gathered) {
      if (gathered.empty()) return f(std::span<std::byte>{at, static_cast<std::size_t>(run * element)});
      f(gathered);
      for (index_t i = 0; i < run; ++i) copy(at + i * col_stride * element, gathered.data() + i * element);
    });
  }

 private:
  static constexpr index_t piece = index_t{1} << 16;

  void copy(std::byte* to, std::byte const* from) const noexcept {
    std::memcpy(to, from, static_cast<std::size_t>(element));
  }

  /// f(first element, count, memory to gather in) for runs within rows; nothing to gather where elements are packed.
  template <class F>
  void walk(F const& f) const {
    if (rows == 0 || cols == 0) return;
    bool const packed = col_stride == 1 || cols == 1;
    bool const whole = packed && (row_stride == cols || rows == 1);
    index_t const lines = whole ? 1 : rows, length = whole ? rows * cols : cols;
    std::vector<std::byte> memory(packed ? 0 : static_cast<std::size_t>(piece));
    for (index_t line = 0; line < lines; ++line)
      for (index_t begin = 0; begin < length;) {
        index_t const run = std::min(piece / element, length - begin);
        auto* const at =
            const_cast<std::byte*>(data) + (line * row_stride + begin * (packed ? 1 : col_stride)) * element;
        f(at, run, std::span{memory}.first(packed ? 0 : static_cast<std::size_t>(run * element)));
        begin += run;
      }
  }
};

template <class T>
inline constexpr dtype scalar_dtype = dtype_of<T>;
template <class T, std::size_t N>
inline constexpr dtype scalar_dtype<std::array<T, N>> = dtype_of<T>;
template <class T>
[[nodiscard]] std::vector<index_t> scalar_shape() {
  if constexpr (is_state_array<T>) return {static_cast<index_t>(std::tuple_size_v<T>)};
  else return {};
}

/// Numbers of a scalar for a message: enumerations and characters as integers, floats with all their digits.
template <class T>
struct scalar_text {
  T const& value;
  friend std::ostream& operator<<(std::ostream& out, scalar_text text) {
    if constexpr (is_state_array<T>) {
      for (std::size_t i = 0; i < text.value.size(); ++i)
        out << (i == 0 ? "" : ", ") << scalar_text<typename T::value_type>{text.value[i]};
    } else if constexpr (std::is_enum_v<T>) {
      out << +static_cast<std::underlying_type_t<T>>(text.value);
    } else {
      auto const digits = out.precision(std::numeric_limits<T>::max_digits10);
      out << +text.value;
      out.precision(digits);
    }
    return out;
  }
};

[[nodiscard]] inline std::string joined_name(std::string_view prefix, std::string_view name) {
  return prefix.empty() ? std::string{name} : join(prefix, '.', name);
}

/// "a", "b" and 3 more
struct name_list {
  std::vector<std::string> const& names;
  friend std::ostream& operator<<(std::ostream& out, name_list list) {
    constexpr std::size_t most = 8;
    for (std::size_t i = 0; i < std::min(most, list.names.size()); ++i)
      out << (i == 0 ? "" : ", ") << quoted{list.names[i]};
    if (list.names.size() > most) out << " and " << list.names.size() - most << " more";
    return out;
  }
};

}  // namespace lowrank::detail
