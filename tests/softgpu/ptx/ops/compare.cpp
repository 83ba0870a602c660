// Comparisons into predicates and into registers, and selection by predicate.
#include <cmath>

#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

// The order of the names below. Those from ltu on are true, too, if an operand is NaN; for integers lo ls hi hs are the
// unsigned lt le gt ge, and the type says which it is.
enum class relation : std::uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

template <relation R>
struct compare {
  template <class T>
  bool operator()(T x, T y) const {
    if constexpr (is_half<T>) return compare{}(value(x), value(y));
    else if constexpr (R == relation::eq) return x == y;
    else if constexpr (R == relation::ne) return std::is_integral_v<T> ? x != y : x < y || x > y;
    else if constexpr (R == relation::lt) return x < y;
    else if constexpr (R == relation::le) return x <= y;
    else if constexpr (R == relation::gt) return x > y;
    else if constexpr (R == relation::ge) return x >= y;
    else if constexpr (R == relation::equ) return !(x < y || x > y);
    else if constexpr (R == relation::neu) return x != y;
    else if constexpr (R == relation::ltu) return !(x >= y);
    else if constexpr (R == relation::leu) return !(x > y);
    else if constexpr (R == relation::gtu) return !(x <= y);
    else if constexpr (R == relation::geu) return !(x < y);
    else if constexpr (R == relation::num) return x == x && y == y;
    else return x != x || y != y;
  }
};
template <class F>
struct ftz_compare {
  bool operator()(float x, float y) const { return F{}(flushed(x), flushed(y)); }
  static float flushed(float x) { return std::fabs(x) < 0x1p-126F ? 0.0F : x; }
};

enum combination : std::uint8_t { alone, with_and, with_or, with_xor };
lane_mask combined(std::uint8_t how, lane_mask x, lane_mask y) {
  switch (how) {
    case with_and:
      return x & y;
    case with_or:
      return x | y;
    case with_xor:
      return x ^ y;
    default:
      return x;
  }
}

template <class T, class F>
lane_mask compared(warp const& w, instruction const& i) {
  auto const* const a = w.slot<cell<T>>(i.a);
  auto const* const b = w.slot<cell<T>>(i.b);
  lane_mask r = 0;
  for (int lane = 0; lane < 32; ++lane) r |= static_cast<lane_mask>(F{}(load<T>(a, lane), load<T>(b, lane))) << lane;
  return r;
}
/// setp p|q, a, b, c:  p = (a ? b) op c,  q = !(a ? b) op c.
template <class T, class F>
void set_predicate(warp& w, instruction const& i, lane_mask m) {
  lane_mask const r = compared<T, F>(w, i);
  lane_mask const other = i.option == alone ? 0 : w.truth(i, i.c, 2);
  if (i.d != 0) w.set_predicate(i.d, combined(i.option, r, other), m);
  if (i.v[0] != 0) w.set_predicate(i.v[0], combined(i.option, ~r, other), m);
}
/// 1.0 or all ones: instruction::e says.
template <class T, class F>
void set_register(warp& w, instruction const& i, lane_mask m) {
  lane_mask r;
  if constexpr (is_pair<T>) {
    bool const as_half = i.e != 0;
    std::uint32_t const one = std::is_same_v<T, pair<f16>> ? 0x3c00 : 0x3f80;
    std::uint32_t results[32];
    for (int lane = 0; lane < 32; ++lane) {
      T const x = load<T>(w, i.a, lane), y = load<T>(w, i.b, lane);
      std::uint32_t const yes = as_half ? one : 0xffff;
      results[lane] = (F{}(x.low(), y.low()) ? yes : 0) | (F{}(x.high(), y.high()) ? yes << 16 : 0);
    }
    return store(w, i.d, results, m);
  } else {
    r = compared<T, F>(w, i);
  }
  r = combined(i.option, r, i.option == alone ? 0 : w.truth(i, i.c, 2));
  std::uint32_t results[32];
  for (int lane = 0; lane < 32; ++lane) results[lane] = (r >> lane & 1) == 0 ? 0 : i.e;
  store(w, i.d, results, m);
}

template <class Choose>
handler for_relation(relation r, Choose const& choose) {
  switch (r) {
    case relation::eq:
      return choose.template operator()<compare<relation::eq>>();
    case relation::ne:
      return choose.template operator()<compare<relation::ne>>();
    case relation::lt:
      return choose.template operator()<compare<relation::lt>>();
    case relation::le:
      return choose.template operator()<compare<relation::le>>();
    case relation::gt:
      return choose.template operator()<compare<relation::gt>>();
    case relation::ge:
      return choose.template operator()<compare<relation::ge>>();
    case relation::equ:
      return choose.template operator()<compare<relation::equ>>();
    case relation::neu:
      return choose.template operator()<compare<relation::neu>>();
    case relation::ltu:
      return choose.template operator()<compare<relation::ltu>>();
    case relation::leu:
      return choose.template operator()<compare<relation::leu>>();
    case relation::gtu:
      return choose.template operator()<compare<relation::gtu>>();
    case relation::geu:
      return choose.template operator()<compare<relation::geu>>();
    case relation::num:
      return choose.template operator()<compare<relation::num>>();
    default:
      return choose.template operator()<compare<relation::nan>>();
  }
}

relation take_relation(statement& s, type t) {
  bool const integer = size_of(t) != 0 && t != type::f16 && t != type::bf16 && t != type::f32 && t != type::f64 &&
                       t != type::f16x2 && t != type::bf16x2;
  int const n =
      s.take_one({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  bool const bits = t == type::b16 || t == type::b32 || t == type::b64;
  if (n >= 0) {
    if (integer && n > 5) throw refusal("relation of floating point on type ." + std::string(name_of(t)));
    if (bits && n > 1) throw refusal("order of type ." + std::string(name_of(t)));
    return static_cast<relation>(n);
  }
  int const u = s.need_one({"lo", "ls", "hi", "hs"});
  if (!integer || is_signed(t) || bits) throw refusal("unsigned relation of type ." + std::string(name_of(t)));
  static constexpr relation plain[] = {relation::lt, relation::le, relation::gt, relation::ge};
  return plain[u];
}

void decode_setp(statement& s) {
  type const t = s.need_type();
  relation const r = take_relation(s, t);
  int const combine = s.take_one({"and", "or", "xor"});
  s.out.option = static_cast<std::uint8_t>(combine + 1);
  bool const ftz = t == type::f32 && s.take("ftz");
  s.need(combine < 0 ? 3 : 4);
  if (auto const second = s.split_pair(0); !second.empty() && second != "_")
    s.out.v[0] = s.context().operand(second, type::pred);
  s.out.d = s.write(0, type::pred);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, t);
  if (combine >= 0) s.out.c = s.read_predicate(3, 2);
  s(for_relation(r, [&]<class F>() -> handler {
    if (ftz) return set_predicate<float, ftz_compare<F>>;
    return among<type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64,
                 type::f32, type::f64, type::f16, type::bf16>(
        t, [](auto l) -> handler { return set_predicate<lane_of<decltype(l)>, F>; });
  }));
}

void decode_set(statement& s) {
  type const d = s.need_type(), t = s.need_type();
  relation const r = take_relation(s, t);
  int const combine = s.take_one({"and", "or", "xor"});
  s.out.option = static_cast<std::uint8_t>(combine + 1);
  bool const ftz = t == type::f32 && s.take("ftz");
  bool const pairs = t == type::f16x2 || t == type::bf16x2;
  if (pairs && combine >= 0) throw refusal("set of pairs with a predicate");
  if (d == type::u32 || d == type::s32 || d == type::b32) s.out.e = pairs ? 0 : 0xffffffff;
  else if (d == type::f32 && !pairs) s.out.e = 0x3f800000;
  else if (d == t && (pairs || t == type::f16 || t == type::bf16))
    s.out.e = t == type::f16 ? 0x3c00 : t == type::bf16 ? 0x3f80 : 1;
  else throw refusal("set with result of type ." + std::string(name_of(d)));
  s.need(combine < 0 ? 3 : 4);
  s.out.d = s.write(0, d);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, t);
  if (combine >= 0) s.out.c = s.read_predicate(3, 2);
  s(for_relation(r, [&]<class F>() -> handler {
    if (ftz) return set_register<float, ftz_compare<F>>;
    return among<type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64,
                 type::f32, type::f64, type::f16, type::bf16, type::f16x2, type::bf16x2>(
        t, [](auto l) -> handler { return set_register<lane_of<decltype(l)>, F>; });
  }));
}

// ---- selection: bits, whatever the type

template <class T>
void select(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  lane_mask const p = w.truth(i, i.c, 2);
  auto const* const a = w.slot<cell<T>>(i.a);
  auto const* const b = w.slot<cell<T>>(i.b);
  for (int lane = 0; lane < 32; ++lane) r[lane] = (p >> lane & 1) != 0 ? load<T>(a, lane) : load<T>(b, lane);
  store(w, i.d, r, m);
}
void decode_selp(statement& s) {
  type t = s.need_type();
  if (t == type::f32) t = type::b32;
  if (t == type::f64) t = type::b64;
  s.need(4);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, t);
  s.out.c = s.read_predicate(3, 2);
  s(among<type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64>(
      t, [](auto l) -> handler { return select<lane_of<decltype(l)>>; }));
}
template <class T, class C>
void select_by_sign(warp& w, instruction const& i, lane_mask m) {
  T r[32];
  for (int lane = 0; lane < 32; ++lane)
    r[lane] = load<C>(w, i.c, lane) >= 0 ? load<T>(w, i.a, lane) : load<T>(w, i.b, lane);
  store(w, i.d, r, m);
}
void decode_slct(statement& s) {
  type t = s.need_type();
  type const by = s.need_type();
  if (t == type::f32) t = type::b32;
  if (t == type::f64) t = type::b64;
  s.need(4);
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, t);
  s.out.c = s.read(3, by);
  s(among<type::s32, type::f32>(by, [&](auto c) {
    return among<type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64>(
        t, [](auto l) -> handler { return select_by_sign<lane_of<decltype(l)>, lane_of<decltype(c)>>; });
  }));
}

}  // namespace

void add_compare_opcodes(opcode_table& t) {
  t["setp"] = decode_setp;
  t["set"] = decode_set;
  t["selp"] = decode_selp;
  t["slct"] = decode_slct;
}

}  // namespace softgpu
