// Loads and stores.
#include <bit>
#include <cstring>

#include "ptx/ops/access.hpp"
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

template <int Bytes>
using word = std::conditional_t<
    Bytes == 1, std::uint8_t,
    std::conditional_t<Bytes == 2, std::uint16_t, std::conditional_t<Bytes == 4, std::uint32_t, std::uint64_t>>>;

template <int Bytes>
void move_to_memory(warp const& w, instruction const& i, char* p, int lane) {
  for (int k = 0; k < i.count; ++k) {
    auto const x = static_cast<word<Bytes>>((i.wide >> (4 + k) & 1) != 0 ? w.slot<std::uint64_t>(i.v[k])[lane]
                                                                         : w.slot<std::uint32_t>(i.v[k])[lane]);
    std::memcpy(p + k * Bytes, &x, Bytes);
  }
}
template <int Bytes, bool Signed>
void move_to_registers(warp const& w, instruction const& i, char const* p, int lane) {
  for (int k = 0; k < i.count; ++k) {
    if (i.v[k] == 0) continue;
    word<Bytes> x;
    std::memcpy(&x, p + k * Bytes, Bytes);
    auto const y = Signed ? static_cast<std::uint64_t>(std::int64_t{static_cast<std::make_signed_t<word<Bytes>>>(x)})
                          : std::uint64_t{x};
    if ((i.wide >> (4 + k) & 1) != 0) w.slot<std::uint64_t>(i.v[k])[lane] = y;
    else w.slot<std::uint32_t>(i.v[k])[lane] = static_cast<std::uint32_t>(y);
  }
}

/// Whole rows of whole words: what nearly every access of a good kernel is.
template <int Bytes, bool Store>
bool move_row(warp& w, instruction const& i, char* row) {
  if constexpr (Bytes < 4) return false;
  using cells = word < Bytes<4 ? 4 : Bytes>;
  for (int k = 0; k < i.count; ++k)
    if (i.v[k] == 0 || ((i.wide >> (4 + k) & 1) != 0) != (Bytes == 8)) return false;
  auto* const memory_cells = reinterpret_cast<cells*>(row);
  for (int k = 0; k < i.count; ++k) {
    auto* const registers = w.slot<cells>(i.v[k]);
    if (Store)
      for (int lane = 0; lane < 32; ++lane) memory_cells[lane * i.count + k] = registers[lane];
    else
      for (int lane = 0; lane < 32; ++lane) registers[lane] = memory_cells[lane * i.count + k];
  }
  return true;
}

/// Generic addresses of local memory are the same for all lanes, and mean another place for each.
bool same_for_all(std::uint64_t const* a, lane_mask m) {
  std::uint64_t const first = a[std::countr_zero(m)];
  if (first >> 56 == local_window >> 56) return false;
  std::uint64_t differ = 0;
  for (int lane = 0; lane < 32; ++lane) differ |= (m >> lane & 1) != 0 ? a[lane] ^ first : 0;
  return differ == 0;
}

template <int Bytes, bool Store, bool Signed>
void transfer(warp& w, instruction const& i, lane_mask m) {
  auto const n = static_cast<std::uint32_t>(Bytes * i.count);
  constexpr access how = Store ? access::write : access::read;
  std::uint64_t a[32];
  for (int lane = 0; lane < 32; ++lane) a[lane] = address_of(w, i, lane);
  if (char* const row = resolve_row(w, i, a, n, m, how)) {
    if (!Signed && move_row<Bytes, Store>(w, i, row)) return;
    for (int lane = 0; lane < 32; ++lane) {
      if (Store) move_to_memory<Bytes>(w, i, row + static_cast<std::size_t>(lane) * n, lane);
      else move_to_registers<Bytes, Signed>(w, i, row + static_cast<std::size_t>(lane) * n, lane);
    }
    return;
  }
  allocation* last = nullptr;
  if (!Store && i.where != space::local && same_for_all(a, m)) {
    char const* const p = resolve_broadcast(w, i, a[std::countr_zero(m)], n, m, last);
    for (int lane = 0; lane < 32 && p; ++lane)
      if ((m >> lane & 1) != 0) move_to_registers<Bytes, Signed>(w, i, p, lane);
  } else {
    for (int lane = 0; lane < 32; ++lane) {
      if ((m >> lane & 1) == 0) continue;
      char* const p = resolve(w, i, a[lane], n, lane, how, last);
      if (!p) return;
      if (Store) move_to_memory<Bytes>(w, i, p, lane);
      else move_to_registers<Bytes, Signed>(w, i, p, lane);
    }
  }
  if (last) ++w.in->counts->requests;
}

/// ld.param of a kernel's parameter: the same for all lanes.
template <int Bytes, bool Signed>
void load_parameter(warp& w, instruction const& i, lane_mask m) {
  char const* const p = w.in->l->parameters.data() + i.offset;
  for (int lane = 0; lane < 32; ++lane)
    if ((m >> lane & 1) != 0) move_to_registers<Bytes, Signed>(w, i, p, lane);
}

template <bool Signed>
handler load_handler(int bytes, bool parameter) {
  switch (bytes) {
    case 1:
      return parameter ? load_parameter<1, Signed> : transfer<1, false, Signed>;
    case 2:
      return parameter ? load_parameter<2, Signed> : transfer<2, false, Signed>;
    case 4:
      return parameter ? load_parameter<4, Signed> : transfer<4, false, Signed>;
    default:
      return parameter ? load_parameter<8, Signed> : transfer<8, false, Signed>;
  }
}
handler store_handler(int bytes) {
  switch (bytes) {
    case 1:
      return transfer<1, true, false>;
    case 2:
      return transfer<2, true, false>;
    case 4:
      return transfer<4, true, false>;
    default:
      return transfer<8, true, false>;
  }
}

/// Whether the access is to the block alone: then it carries no order between blocks.
void take_order(statement& s) {
  bool const stores = s.opcode() == "st";
  if (s.take("weak")) return;
  if (s.take("volatile")) {
    s.out.ordering = order::relaxed;
    return;
  }
  int const n = stores ? s.take_one({"relaxed", "release"}) : s.take_one({"relaxed", "acquire"});
  if (n < 0) return;
  s.out.ordering = n == 0 ? order::relaxed : stores ? order::release : order::acquire;
  s.need_one({"cta", "gpu", "sys"});
}
void take_space(statement& s) {
  static constexpr space spaces[] = {space::global, space::shared, space::shared, space::local,
                                     space::param,  space::param,  space::global};
  int const n = s.take_one({"global", "shared", "shared::cta", "local", "param", "param::entry", "const"});
  if (n >= 0) s.out.where = spaces[n];
}
void take_elements(statement& s, std::size_t n, type t) {
  bool const two = s.take("v2"), four = s.take("v4");
  s.elements(n, t);
  if (s.out.count != (four ? 4 : two ? 2 : 1)) throw refusal("number of vector elements");
  if (size_of(t) * s.out.count > 16) throw refusal("vector of more than 16 bytes");
  s.out.bytes = static_cast<std::uint8_t>(size_of(t));
}
type memory_type(statement& s) {
  type const t = s.need_type();
  if (t == type::pred || t == type::f16 || t == type::bf16 || t == type::f16x2 || t == type::bf16x2)
    throw refusal("type ." + std::string(name_of(t)));
  return t;
}
/// Parameters of functions are memory of the thread; what remains is a parameter of the kernel.
std::optional<symbol> base_of(statement& s, std::size_t n) {
  auto const text = s.operand(n).substr(1);
  auto const base = s.context().find(trim(text.substr(0, text.find_first_of("+]"))));
  if (base && base->is == symbol::local && s.out.where == space::param) s.out.where = space::local;
  return base;
}

void decode_ld(statement& s) {
  take_order(s);
  take_space(s);
  // Where a line is kept, and for how long, is no business of results.
  s.allow({"nc", "ca", "cg", "cs", "lu", "cv", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first",
           "L1::evict_last", "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B"});
  s.allow({"L2::evict_first", "L2::evict_last", "L2::evict_normal"});
  type const t = memory_type(s);
  s.need(2);
  take_elements(s, 0, t);
  s.address(1);
  auto const base = base_of(s, 1);
  bool const parameter = s.out.where == space::param && base && base->is == symbol::param;
  if (parameter) s.out.offset += static_cast<std::int64_t>(base->at);
  s(is_signed(t) ? load_handler<true>(size_of(t), parameter) : load_handler<false>(size_of(t), parameter));
}
void decode_st(statement& s) {
  take_order(s);
  take_space(s);
  s.allow({"wb", "cg", "cs", "wt", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
           "L1::no_allocate"});
  s.allow({"L2::evict_first", "L2::evict_last", "L2::evict_normal"});
  type const t = memory_type(s);
  s.need(2);
  s.address(0);
  base_of(s, 0);
  take_elements(s, 1, t);
  if (s.out.where == space::param) throw refusal("store to a parameter of the kernel");
  s(store_handler(size_of(t)));
}

}  // namespace

void add_memory_opcodes(opcode_table& t) {
  t["ld"] = t["ldu"] = decode_ld;
  t["st"] = decode_st;
}

}  // namespace softgpu
