// mov: registers, addresses of variables, special registers, and vectors of parts of a register.
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

struct same {
  template <class T>
  T operator()(T x) const {
    return x;
  }
};

void copy_predicate(warp& w, instruction const& i, lane_mask m) { w.set_predicate(i.d, w.truth(i, i.a, 0), m); }

constexpr std::uint64_t low_bits(int bytes) {
  return bytes == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * bytes)) - 1;
}

/// d = {v0, v1, ..}; bytes is the size of one part.
template <class D>
void pack(warp& w, instruction const& i, lane_mask m) {
  D r[32] = {};
  for (int k = 0; k < i.count; ++k)
    for (int lane = 0; lane < 32; ++lane)
      r[lane] |= static_cast<D>((load<std::uint32_t>(w, i.v[k], lane) & low_bits(i.bytes)) << (8 * i.bytes * k));
  store(w, i.d, r, m);
}
template <class S>
void unpack(warp& w, instruction const& i, lane_mask m) {
  S x[32];
  for (int lane = 0; lane < 32; ++lane) x[lane] = load<S>(w, i.a, lane);
  for (int k = 0; k < i.count; ++k) {
    if (i.v[k] == 0) continue;
    std::uint32_t r[32];
    for (int lane = 0; lane < 32; ++lane)
      r[lane] = static_cast<std::uint32_t>(x[lane] >> (8 * i.bytes * k) & static_cast<S>(low_bits(i.bytes)));
    store(w, i.v[k], r, m);
  }
}

enum class own_mask : std::uint8_t { eq, lt, le, gt, ge };
void lane_bits(warp& w, instruction const& i, lane_mask m) {
  std::uint32_t r[32];
  for (int lane = 0; lane < 32; ++lane) {
    std::uint32_t const me = 1U << lane, before = me - 1;
    switch (static_cast<own_mask>(i.option)) {
      case own_mask::eq:
        r[lane] = me;
        break;
      case own_mask::lt:
        r[lane] = before;
        break;
      case own_mask::le:
        r[lane] = before | me;
        break;
      case own_mask::gt:
        r[lane] = ~(before | me);
        break;
      case own_mask::ge:
        r[lane] = ~before;
        break;
    }
  }
  store(w, i.d, r, m);
}
/// Time goes by with every look: whoever waits for it gets there.
template <class T>
void clock(warp& w, instruction const& i, lane_mask m) {
  static std::uint64_t now = 0;
  now += 1000;
  T r[32];
  for (auto& x : r) x = static_cast<T>(now);
  store(w, i.d, r, m);
}

type part_of(type t, std::size_t parts) {
  switch (size_of(t) / parts) {
    case 1:
      return type::b8;
    case 2:
      return type::b16;
    case 4:
      return type::b32;
    default:
      throw refusal("parts of a register");
  }
}
std::size_t parts_in(std::string_view vector) { return split(vector.substr(1, vector.size() - 2), ',').size(); }

void decode_mov(statement& s) {
  type const t = s.need_type();
  s.need(2);
  if (t == type::pred) {
    s.out.d = s.write(0, t);
    s.out.a = s.read_predicate(1, 0);
    return s(copy_predicate);
  }
  static constexpr std::string_view masks[] = {"%lanemask_eq", "%lanemask_lt", "%lanemask_le", "%lanemask_gt",
                                               "%lanemask_ge"};
  for (std::uint8_t n = 0; n < 5; ++n)
    if (s.operand(1) == masks[n]) {
      s.out.option = n;
      s.out.d = s.write(0, type::b32);
      return s(lane_bits);
    }
  if (s.operand(1) == "%clock" || s.operand(1) == "%clock_hi" || s.operand(1) == "%globaltimer_lo") {
    s.out.d = s.write(0, type::b32);
    return s(clock<std::uint32_t>);
  }
  if (s.operand(1) == "%clock64" || s.operand(1) == "%globaltimer") {
    s.out.d = s.write(0, type::b64);
    return s(clock<std::uint64_t>);
  }
  bool const packs = s.operand(1).front() == '{', unpacks = s.operand(0).front() == '{';
  if (packs || unpacks) {
    type const part = part_of(t, parts_in(s.operand(packs ? 1 : 0)));
    s.out.bytes = static_cast<std::uint8_t>(size_of(part));
    s.elements(packs ? 1 : 0, part);
    if (packs) {
      s.out.d = s.write(0, t);
      return s(is_wide(t) ? pack<std::uint64_t> : pack<std::uint32_t>);
    }
    s.out.a = s.read(1, t);
    return s(is_wide(t) ? unpack<std::uint64_t> : unpack<std::uint32_t>);
  }
  s.out.d = s.write(0, t);
  s.out.a = s.read(1, t);
  // Bits, not values: the type of a register says nothing about what it holds.
  s(among<type::b8, type::b16, type::b32, type::b64, type::u16, type::u32, type::u64, type::s16, type::s32, type::s64,
          type::f16, type::bf16, type::f16x2, type::bf16x2, type::f32, type::f64>(t, [](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return sizeof(T) == 8 ? unary<std::uint64_t, same> : unary<std::uint32_t, same>;
  }));
}

}  // namespace

void add_move_opcodes(opcode_table& t) { t["mov"] = decode_mov; }

}  // namespace softgpu
