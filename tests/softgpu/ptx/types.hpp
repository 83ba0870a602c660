// The types of PTX instructions, and what a lane holds of each.
#pragma once

#include <cstdint>
#include <string_view>

namespace softgpu {

enum class type : std::uint8_t {
  none,
  pred,
  b8,
  b16,
  b32,
  b64,
  u8,
  u16,
  u32,
  u64,
  s8,
  s16,
  s32,
  s64,
  f16,
  f16x2,
  bf16,
  bf16x2,
  f32,
  f64
};

[[nodiscard]] type type_of(std::string_view name) noexcept;  ///< without its dot; none if it is no type known here
[[nodiscard]] std::string_view name_of(type t) noexcept;
[[nodiscard]] int size_of(type t) noexcept;  ///< bytes; a predicate is a word for the whole warp
[[nodiscard]] bool is_signed(type t) noexcept;
[[nodiscard]] bool is_wide(type t) noexcept;  ///< 64 bits

}  // namespace softgpu
