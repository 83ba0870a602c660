#include "ptx/types.hpp"

#include <array>
#include <utility>

namespace softgpu {

namespace {
struct row {
  std::string_view name;
  type t;
  int size;
};
constexpr std::array<row, 20> rows{
    {{"", type::none, 0},     {"pred", type::pred, 4},     {"b8", type::b8, 1},   {"b16", type::b16, 2},
     {"b32", type::b32, 4},   {"b64", type::b64, 8},       {"u8", type::u8, 1},   {"u16", type::u16, 2},
     {"u32", type::u32, 4},   {"u64", type::u64, 8},       {"s8", type::s8, 1},   {"s16", type::s16, 2},
     {"s32", type::s32, 4},   {"s64", type::s64, 8},       {"f16", type::f16, 2}, {"f16x2", type::f16x2, 4},
     {"bf16", type::bf16, 2}, {"bf16x2", type::bf16x2, 4}, {"f32", type::f32, 4}, {"f64", type::f64, 8}}};
}  // namespace

type type_of(std::string_view name) noexcept {
  for (auto const& r : rows)
    if (r.name == name) return r.t;
  return type::none;
}
std::string_view name_of(type t) noexcept { return rows[static_cast<std::size_t>(t)].name; }
int size_of(type t) noexcept { return rows[static_cast<std::size_t>(t)].size; }
bool is_signed(type t) noexcept { return t == type::s8 || t == type::s16 || t == type::s32 || t == type::s64; }
bool is_wide(type t) noexcept { return size_of(t) == 8; }

}  // namespace softgpu
