// Atomic operations, lane after lane.
#include <cstring>

#include "ptx/ops/access.hpp"
#include "ptx/ops/extremes.hpp"
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

struct plus {
  template <class T>
  T operator()(T x, T y) const {
    if constexpr (is_pair<T>) return T::of(plus{}(x.low(), y.low()), plus{}(x.high(), y.high()));
    else if constexpr (is_half<T>) return narrow<T>(add_to_odd(value(x), value(y)));
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<std::uint64_t>(x) + static_cast<std::uint64_t>(y));
    else return x + y;
  }
};
struct both {
  template <class T>
  T operator()(T x, T y) const {
    return x & y;
  }
};
struct either {
  template <class T>
  T operator()(T x, T y) const {
    return x | y;
  }
};
struct differs {
  template <class T>
  T operator()(T x, T y) const {
    return x ^ y;
  }
};
struct replaced {
  template <class T>
  T operator()(T, T y) const {
    return y;
  }
};
struct counted_up {
  template <class T>
  T operator()(T x, T y) const {
    return x >= y ? 0 : x + 1;
  }
};
struct counted_down {
  template <class T>
  T operator()(T x, T y) const {
    return x == 0 || x > y ? y : x - 1;
  }
};
struct compare_and_swap {};

template <class T, class F>
void atomic(warp& w, instruction const& i, lane_mask m) {
  allocation* last = nullptr;
  T r[32] = {};
  for (int lane = 0; lane < 32; ++lane) {
    if ((m >> lane & 1) == 0) continue;
    char* const p = resolve(w, i, address_of(w, i, lane), sizeof(T), lane, access::atomic, last);
    if (!p) return;
    T old, now;
    std::memcpy(&old, p, sizeof old);
    T const b = load<T>(w, i.b, lane);
    if constexpr (std::is_same_v<F, compare_and_swap>) now = old == b ? load<T>(w, i.c, lane) : old;
    else now = F{}(old, b);
    std::memcpy(p, &now, sizeof now);
    r[lane] = old;
  }
  if (last) ++w.in->counts->requests;
  if (i.d != 0) store(w, i.d, r, m);
}

template <class F, type... Types>
handler of_types(type t) {
  return among<Types...>(t, [](auto l) -> handler { return atomic<lane_of<decltype(l)>, F>; });
}
handler operation(statement& s, type t) {
  switch (s.need_one({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"})) {
    case 0:
      if (t == type::f16 || t == type::bf16 || t == type::f16x2 || t == type::bf16x2) s.need_one({"noftz"});
      return of_types<plus, type::u32, type::s32, type::u64, type::f32, type::f64, type::f16, type::bf16, type::f16x2,
                      type::bf16x2>(t);
    case 1:
      return of_types<smaller, type::u32, type::s32, type::u64, type::s64>(t);
    case 2:
      return of_types<larger, type::u32, type::s32, type::u64, type::s64>(t);
    case 3:
      return of_types<both, type::b32, type::b64>(t);
    case 4:
      return of_types<either, type::b32, type::b64>(t);
    case 5:
      return of_types<differs, type::b32, type::b64>(t);
    case 6:
      return of_types<replaced, type::b32, type::b64>(t);
    case 7:
      return of_types<compare_and_swap, type::b16, type::b32, type::b64>(t);
    case 8:
      return of_types<counted_up, type::u32>(t);
    default:
      return of_types<counted_down, type::u32>(t);
  }
}

void decode_atomic(statement& s) {
  bool const gives = s.opcode() == "atom";
  static constexpr order orders[] = {order::relaxed, order::acquire, order::release, order::acquire_release};
  int const n = s.take_one({"relaxed", "acquire", "release", "acq_rel"});
  s.out.ordering = n < 0 ? order::relaxed : orders[n];
  s.allow({"gpu", "sys"});
  s.allow({"cta"});
  static constexpr space spaces[] = {space::global, space::shared, space::shared};
  if (int const where = s.take_one({"global", "shared", "shared::cta"}); where >= 0) s.out.where = spaces[where];
  s.allow({"L1::no_allocate"});
  type const t = s.need_type();
  handler const run = operation(s, t);
  std::size_t const first = gives ? 1 : 0;
  bool const swaps = s.opcode() == "atom" && s.count() == 4;
  s.need(first + (swaps ? 3 : 2));
  if (gives) s.out.d = s.write(0, t);
  s.address(first);
  s.out.b = s.read(first + 1, t);
  if (swaps) s.out.c = s.read(first + 2, t);
  s(run);
}

}  // namespace

void add_atomic_opcodes(opcode_table& t) { t["atom"] = t["red"] = decode_atomic; }

}  // namespace softgpu
