/// @file
/// What a tensor in a GGUF file is: name, ggml's element type, shape, place.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/tensor_info.hpp"

namespace lowrank {

/// Element types of ggml, by the numbers that files hold.
enum class ggml_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39
};

namespace detail {

/// `values` consecutive elements of a row are stored in `bytes` bytes.
struct ggml_row {
  ggml_type type;
  std::string_view name;
  index_t values, bytes;
};
inline constexpr std::array<ggml_row, 31> ggml_rows{
    {{ggml_type::f32, "F32", 1, 4},           {ggml_type::f16, "F16", 1, 2},
     {ggml_type::q4_0, "Q4_0", 32, 18},       {ggml_type::q4_1, "Q4_1", 32, 20},
     {ggml_type::q5_0, "Q5_0", 32, 22},       {ggml_type::q5_1, "Q5_1", 32, 24},
     {ggml_type::q8_0, "Q8_0", 32, 34},       {ggml_type::q2_k, "Q2_K", 256, 84},
     {ggml_type::q3_k, "Q3_K", 256, 110},     {ggml_type::q4_k, "Q4_K", 256, 144},
     {ggml_type::q5_k, "Q5_K", 256, 176},     {ggml_type::q6_k, "Q6_K", 256, 210},
     {ggml_type::q8_k, "Q8_K", 256, 292},     {ggml_type::iq2_xxs, "IQ2_XXS", 256, 66},
     {ggml_type::iq2_xs, "IQ2_XS", 256, 74},  {ggml_type::iq3_xxs, "IQ3_XXS", 256, 98},
     {ggml_type::iq1_s, "IQ1_S", 256, 50},    {ggml_type::iq4_nl, "IQ4_NL", 32, 18},
     {ggml_type::iq3_s, "IQ3_S", 256, 110},   {ggml_type::iq2_s, "IQ2_S", 256, 82},
     {ggml_type::iq4_xs, "IQ4_XS", 256, 136}, {ggml_type::i8, "I8", 1, 1},
     {ggml_type::i16, "I16", 1, 2},           {ggml_type::i32, "I32", 1, 4},
     {ggml_type::i64, "I64", 1, 8},           {ggml_type::f64, "F64", 1, 8},
     {ggml_type::iq1_m, "IQ1_M", 256, 56},    {ggml_type::bf16, "BF16", 1, 2},
     {ggml_type::tq1_0, "TQ1_0", 256, 54},    {ggml_type::tq2_0, "TQ2_0", 256, 66},
     {ggml_type::mxfp4, "MXFP4", 32, 17}}};

/// Requires: `type` is one of the enumeration's.
[[nodiscard]] constexpr ggml_row const& row_of(ggml_type type) noexcept {
  return *std::ranges::find(ggml_rows, type, &ggml_row::type);
}

}  // namespace detail

/// The type of that number in a file, or nothing.
[[nodiscard]] constexpr std::optional<ggml_type> ggml_type_numbered(std::uint32_t number) noexcept {
  auto const row = std::ranges::find(detail::ggml_rows, static_cast<ggml_type>(number), &detail::ggml_row::type);
  return row == detail::ggml_rows.end() ? std::nullopt : std::optional{row->type};
}
/// The name of a type as ggml spells it.
[[nodiscard]] constexpr std::string_view name(ggml_type type) noexcept { return detail::row_of(type).name; }
inline std::ostream& operator<<(std::ostream& out, ggml_type type) { return out << name(type); }

/// One tensor of a GGUF file. Bytes [begin, end) of the file's data. `shape` has the slowest dimension first, unlike the
/// file, so that a linear weight is out x in.
struct gguf_tensor {
  std::string name;
  ggml_type type{};
  std::vector<index_t> shape;
  index_t begin{}, end{};

  [[nodiscard]] index_t bytes() const noexcept { return end - begin; }
};

namespace detail {

/// Bytes of a tensor, or nothing if its rows are no whole number of blocks or its size does not fit index_t.
[[nodiscard]] inline std::optional<index_t> packed_bytes(ggml_type type, std::vector<index_t> const& shape) noexcept {
  auto const& row = row_of(type);
  index_t const cols = shape.empty() ? 1 : shape.back();
  if (cols < 0 || cols % row.values != 0) return std::nullopt;
  index_t elements = 1;
  for (index_t const extent : shape)
    if (extent < 0 || __builtin_mul_overflow(elements, extent, &elements)) return std::nullopt;
  index_t bytes = 0;
  if (__builtin_mul_overflow(elements / row.values, row.bytes, &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace detail

}  // namespace lowrank
