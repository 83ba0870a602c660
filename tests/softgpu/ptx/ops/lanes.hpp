// Handlers as loops over 32 lanes. The result of all lanes is computed, then stored where the mask says: full masks
// vectorise, and a lane that is switched off holds harmless numbers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "exec/warp.hpp"
#include "ptx/decode.hpp"
#include "ptx/ops/half.hpp"
#include "ptx/types.hpp"

namespace softgpu {

__extension__ using s128 = __int128;
__extension__ using u128 = unsigned __int128;

// ---- lane types --------------------------------------------------------------------------------------------------

template <class T>
struct tag {
  using lane = T;
};
template <class Tag>
using lane_of = typename Tag::lane;

template <type T>
constexpr auto lane_tag() {
  if constexpr (T == type::u8 || T == type::b8) return tag<std::uint8_t>{};
  if constexpr (T == type::u16 || T == type::b16) return tag<std::uint16_t>{};
  if constexpr (T == type::u32 || T == type::b32) return tag<std::uint32_t>{};
  if constexpr (T == type::u64 || T == type::b64) return tag<std::uint64_t>{};
  if constexpr (T == type::s8) return tag<std::int8_t>{};
  if constexpr (T == type::s16) return tag<std::int16_t>{};
  if constexpr (T == type::s32) return tag<std::int32_t>{};
  if constexpr (T == type::s64) return tag<std::int64_t>{};
  if constexpr (T == type::f16) return tag<f16>{};
  if constexpr (T == type::bf16) return tag<bf16>{};
  if constexpr (T == type::f16x2) return tag<pair<f16>>{};
  if constexpr (T == type::bf16x2) return tag<pair<bf16>>{};
  if constexpr (T == type::f32) return tag<float>{};
  if constexpr (T == type::f64) return tag<double>{};
}

/// The handler that `choose` gives for the lane type of t; a type that is not listed is refused by name.
template <type... Allowed, class F>
handler among(type t, F choose) {
  handler h = nullptr;
  (void)((t == Allowed && ((h = choose(lane_tag<Allowed>())), true)) || ...);
  if (!h) throw refusal("type ." + std::string(name_of(t)));
  return h;
}

// ---- registers ---------------------------------------------------------------------------------------------------

/// What a register holds: what is smaller than 32 bits lies in a word, extended by its sign.
template <class T>
using cell =
    std::conditional_t<sizeof(T) == 8 || std::is_same_v<T, float>, T,
                       std::conditional_t<std::is_integral_v<T> && std::is_signed_v<T>, std::int32_t, std::uint32_t>>;

template <class T>
inline T load(cell<T> const* slot, int lane) {
  if constexpr (is_half<T>) return T{static_cast<std::uint16_t>(slot[lane])};
  else if constexpr (is_pair<T>) return T{slot[lane]};
  else return static_cast<T>(slot[lane]);
}
template <class T>
inline T load(warp const& w, std::uint32_t slot, int lane) {
  return load<T>(w.slot<cell<T>>(slot), lane);
}
template <class T>
inline cell<T> to_cell(T value) {
  if constexpr (is_half<T> || is_pair<T>) return value.bits;
  else return static_cast<cell<T>>(value);
}

template <class T>
inline void store(warp const& w, std::uint32_t slot, T const* results, lane_mask m) {
  cell<T>* const d = w.slot<cell<T>>(slot);
  if (m == ~lane_mask{}) {
    for (int lane = 0; lane < 32; ++lane) d[lane] = to_cell(results[lane]);
  } else {
    for (int lane = 0; lane < 32; ++lane) d[lane] = (m >> lane & 1) != 0 ? to_cell(results[lane]) : d[lane];
  }
}

// ---- handlers ----------------------------------------------------------------------------------------------------

template <class D, class A, class F>
void map1(warp& w, instruction const& i, lane_mask m) {
  D r[32];
  auto const* const a = w.slot<cell<A>>(i.a);
  for (int lane = 0; lane < 32; ++lane) r[lane] = static_cast<D>(F{}(load<A>(a, lane)));
  store(w, i.d, r, m);
}
template <class D, class A, class B, class F>
void map2(warp& w, instruction const& i, lane_mask m) {
  D r[32];
  auto const* const a = w.slot<cell<A>>(i.a);
  auto const* const b = w.slot<cell<B>>(i.b);
  for (int lane = 0; lane < 32; ++lane) r[lane] = static_cast<D>(F{}(load<A>(a, lane), load<B>(b, lane)));
  store(w, i.d, r, m);
}
template <class D, class A, class B, class C, class F>
void map3(warp& w, instruction const& i, lane_mask m) {
  D r[32];
  auto const* const a = w.slot<cell<A>>(i.a);
  auto const* const b = w.slot<cell<B>>(i.b);
  auto const* const c = w.slot<cell<C>>(i.c);
  for (int lane = 0; lane < 32; ++lane)
    r[lane] = static_cast<D>(F{}(load<A>(a, lane), load<B>(b, lane), load<C>(c, lane)));
  store(w, i.d, r, m);
}

template <class T, class F>
constexpr handler unary = map1<T, T, F>;
template <class T, class F>
constexpr handler binary = map2<T, T, T, F>;
template <class T, class F>
constexpr handler ternary = map3<T, T, T, T, F>;

/// d, a, b, .. all of one type: operands read, handler set.
inline void same_type(statement& s, type t, std::size_t sources, handler run) {
  s.need(sources + 1);
  s.out.d = s.write(0, t);
  s.read_all(t);
  s(run);
}

}  // namespace softgpu
