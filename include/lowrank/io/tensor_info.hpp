/// @file
/// What a tensor in a file is: name, element type, shape, place.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lowrank/core/scalar.hpp"

namespace lowrank {

static_assert(std::endian::native == std::endian::little, "lowrank: tensor files are little-endian, and so must we be");

/// Element types of safetensors, in the order of that format: from the least to the most strictly aligned.
enum class dtype : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64
};

namespace detail {

struct dtype_row {
  std::string_view name;
  index_t bits;
};
inline constexpr std::array<dtype_row, 22> dtype_rows{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

}  // namespace detail

/// The name of a type as the file spells it.
[[nodiscard]] constexpr std::string_view name(dtype type) noexcept {
  return detail::dtype_rows[static_cast<std::size_t>(type)].name;
}
[[nodiscard]] constexpr index_t bits(dtype type) noexcept {
  return detail::dtype_rows[static_cast<std::size_t>(type)].bits;
}
inline std::ostream& operator<<(std::ostream& out, dtype type) { return out << name(type); }

[[nodiscard]] constexpr std::optional<dtype> dtype_named(std::string_view text) noexcept {
  for (std::size_t i = 0; i < detail::dtype_rows.size(); ++i)
    if (detail::dtype_rows[i].name == text) return static_cast<dtype>(i);
  return std::nullopt;
}

namespace detail {

template <class T>
[[nodiscard]] constexpr std::optional<dtype> dtype_for() noexcept {
  if constexpr (std::is_enum_v<T>) return dtype_for<std::underlying_type_t<T>>();
  else if constexpr (std::is_same_v<T, bool>) return dtype::boolean;
  else if constexpr (std::is_same_v<T, float>) return dtype::f32;
  else if constexpr (std::is_same_v<T, double>) return dtype::f64;
  else if constexpr (std::is_same_v<T, bf16>) return dtype::bf16;
  else if constexpr (std::is_same_v<T, fp16>) return dtype::f16;
  else if constexpr (std::is_integral_v<T>) {
    switch (sizeof(T)) {
      case 1:
        return std::is_signed_v<T> ? dtype::i8 : dtype::u8;
      case 2:
        return std::is_signed_v<T> ? dtype::i16 : dtype::u16;
      case 4:
        return std::is_signed_v<T> ? dtype::i32 : dtype::u32;
      default:
        return std::is_signed_v<T> ? dtype::i64 : dtype::u64;
    }
  } else return std::nullopt;
}

}  // namespace detail

/// Types whose memory is what a file holds: numbers, enumerations (as the integer beneath), bf16 and fp16.
template <class T>
concept storable = detail::dtype_for<std::remove_cv_t<T>>()
.has_value();
template <storable T>
inline constexpr dtype dtype_of = *detail::dtype_for<std::remove_cv_t<T>>();

/// One entry of a file's header. Bytes [begin, end) of the file's data, C order.
struct tensor_info {
  std::string name;
  dtype type{};
  std::vector<index_t> shape;
  index_t begin{}, end{};

  [[nodiscard]] index_t bytes() const noexcept { return end - begin; }
};

namespace detail {

/// A shape as people write it: [3, 4].
struct shape_text {
  std::vector<index_t> const& shape;
  friend std::ostream& operator<<(std::ostream& out, shape_text text) {
    out << '[';
    for (std::size_t i = 0; i < text.shape.size(); ++i) out << (i == 0 ? "" : ", ") << text.shape[i];
    return out << ']';
  }
};

/// Text of strangers, safe to print: control characters and non-ASCII bytes as \xNN, cut after 80.
struct quoted {
  std::string_view text;
  friend std::ostream& operator<<(std::ostream& out, quoted q) {
    constexpr std::string_view digits = "0123456789abcdef";
    constexpr std::size_t limit = 80;
    out << '"';
    for (char const c : q.text.substr(0, limit)) {
      auto const code = static_cast<unsigned char>(c);
      if (code < 0x20 || code >= 0x7F) out << "\\x" << digits[code >> 4] << digits[code & 15U];
      else out << c;
    }
    return out << '"' << (q.text.size() > limit ? "..." : "");
  }
};

/// Bytes of a packed tensor, or nothing if they do not fit index_t or do not fill whole bytes.
[[nodiscard]] inline std::optional<index_t> packed_bytes(dtype type, std::vector<index_t> const& shape) noexcept {
  index_t product = 1;
  for (index_t const extent : shape)
    if (extent < 0 || __builtin_mul_overflow(product, extent, &product)) return std::nullopt;
  if (__builtin_mul_overflow(product, bits(type), &product) || product % 8 != 0) return std::nullopt;
  return product / 8;
}

}  // namespace detail

}  // namespace lowrank
