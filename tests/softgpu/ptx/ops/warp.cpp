// What the lanes of a warp do together.
#include <bit>

#include "ptx/ops/extremes.hpp"
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

/// Masks may differ between lanes (tiles of a warp): every live lane that a mask names must be here, and name itself.
struct members {
  lane_mask of[32];
  members(warp& w, instruction const& i, lane_mask m, std::uint32_t slot) {
    lane_mask strangers = 0;
    for (int lane = 0; lane < 32; ++lane) {
      of[lane] = load<std::uint32_t>(w, slot, lane);
      bool const wrong = (of[lane] & w.alive & ~m) != 0 || (of[lane] >> lane & 1) == 0;
      strangers |= static_cast<lane_mask>(wrong) << lane;
    }
    if ((strangers & m) == 0) return;
    fault(w, "warp convergence", i,
          "the mask of lane " + std::to_string(std::countr_zero(strangers & m)) +
              " names lanes that are not at this instruction, or not itself");
  }
};

enum class shuffle_mode : std::uint8_t { up, down, bfly, idx };

template <shuffle_mode Mode>
void shuffle(warp& w, instruction const& i, lane_mask m) {
  members const named(w, i, m, i.e);
  if (w.in->faulted) return;
  std::int32_t from[32];
  lane_mask in_range = 0, missing = 0;
  for (int lane = 0; lane < 32; ++lane) {
    int const b = static_cast<int>(load<std::uint32_t>(w, i.b, lane) & 31);
    std::uint32_t const c = load<std::uint32_t>(w, i.c, lane);
    int const segment = static_cast<int>(c >> 8 & 31), clamp = static_cast<int>(c & 31);
    int const last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    int const wanted = Mode == shuffle_mode::up     ? lane - b
                       : Mode == shuffle_mode::down ? lane + b
                       : Mode == shuffle_mode::bfly ? lane ^ b
                                                    : first | (b & ~segment);
    bool const ok = Mode == shuffle_mode::up ? wanted >= last : wanted <= last;
    from[lane] = ok ? wanted : lane;
    in_range |= static_cast<lane_mask>(ok) << lane;
    missing |= (~m >> from[lane] & 1) << lane;
  }
  if ((missing & m) != 0)
    return fault(w, "warp convergence", i,
                 "shuffle reads lane " + std::to_string(from[std::countr_zero(missing & m)]) + ", which is inactive");
  std::uint32_t r[32];
  auto const* const a = w.slot<std::uint32_t>(i.a);
  for (int lane = 0; lane < 32; ++lane) r[lane] = a[from[lane]];
  if (i.d != 0) store(w, i.d, r, m);
  if (i.v[0] != 0) w.set_predicate(i.v[0], in_range, m);
}
void decode_shuffle(statement& s) {
  if (!s.take("sync")) throw refusal("shuffle without .sync");
  if (s.need_type() != type::b32) throw refusal("shuffle of another type than .b32");
  static constexpr handler modes[] = {shuffle<shuffle_mode::up>, shuffle<shuffle_mode::down>,
                                      shuffle<shuffle_mode::bfly>, shuffle<shuffle_mode::idx>};
  handler const run = modes[s.need_one({"up", "down", "bfly", "idx"})];
  if (auto const second = s.split_pair(0); !second.empty() && second != "_")
    s.out.v[0] = s.context().operand(second, type::pred);
  same_type(s, type::b32, 4, run);
}

enum class vote_mode : std::uint8_t { ballot, any, all, uni };
template <vote_mode Mode>
void vote(warp& w, instruction const& i, lane_mask m) {
  lane_mask const truth = w.truth(i, i.a, 0) & m;
  members const named(w, i, m, i.b);
  std::uint32_t ballots[32];
  lane_mask r = 0;
  for (int lane = 0; lane < 32; ++lane) {
    lane_mask const here = named.of[lane] & m, yes = truth & here;
    ballots[lane] = yes;
    bool const answer = Mode == vote_mode::any   ? yes != 0
                        : Mode == vote_mode::all ? yes == here
                                                 : yes == 0 || yes == here;
    r |= static_cast<lane_mask>(answer) << lane;
  }
  if (Mode == vote_mode::ballot) store(w, i.d, ballots, m);
  else w.set_predicate(i.d, r, m);
}
void decode_vote(statement& s) {  // the modifiers come in either order
  if (!s.take("sync")) throw refusal("vote without .sync");
  static constexpr handler modes[] = {vote<vote_mode::ballot>, vote<vote_mode::any>, vote<vote_mode::all>,
                                      vote<vote_mode::uni>};
  int const mode = s.need_one({"ballot", "any", "all", "uni"});
  if (s.need_type() != (mode == 0 ? type::b32 : type::pred)) throw refusal("type of a vote");
  s.need(3);
  s.out.d = s.write(0, mode == 0 ? type::b32 : type::pred);
  s.out.a = s.read_predicate(1, 0);
  s.out.b = s.read(2, type::b32);
  s(modes[mode]);
}

template <class T, bool All>
void match(warp& w, instruction const& i, lane_mask m) {
  members const named(w, i, m, i.b);
  std::uint32_t r[32] = {};
  lane_mask same = 0;
  for (int lane = 0; lane < 32; ++lane) {
    lane_mask const here = named.of[lane] & m;
    for (lane_mask rest = here; rest != 0; rest &= rest - 1) {
      int const other = std::countr_zero(rest);
      if (load<T>(w, i.a, lane) == load<T>(w, i.a, other)) r[lane] |= lane_mask{1} << other;
    }
    if (All) {
      bool const all = r[lane] == here;
      same |= static_cast<lane_mask>(all) << lane;
      if (!all) r[lane] = 0;
    }
  }
  if (i.d != 0) store(w, i.d, r, m);
  if (i.v[0] != 0) w.set_predicate(i.v[0], same, m);
}
void decode_match(statement& s) {
  if (!s.take("sync")) throw refusal("match without .sync");
  bool const all = s.need_one({"any", "all"}) == 1;
  type const t = s.need_type();
  s.need(3);
  if (auto const second = s.split_pair(0); all && !second.empty() && second != "_")
    s.out.v[0] = s.context().operand(second, type::pred);
  s.out.d = s.write(0, type::b32);
  s.out.a = s.read(1, t);
  s.out.b = s.read(2, type::b32);
  s(among<type::b32, type::b64>(t, [&](auto l) -> handler {
    using T = lane_of<decltype(l)>;
    return all ? match<T, true> : match<T, false>;
  }));
}

struct plus {
  template <class T>
  T operator()(T x, T y) const {
    return static_cast<T>(static_cast<std::uint32_t>(x) + static_cast<std::uint32_t>(y));
  }
};
struct both {
  std::uint32_t operator()(std::uint32_t x, std::uint32_t y) const { return x & y; }
};
struct either {
  std::uint32_t operator()(std::uint32_t x, std::uint32_t y) const { return x | y; }
};
struct differs {
  std::uint32_t operator()(std::uint32_t x, std::uint32_t y) const { return x ^ y; }
};
template <class T, class F>
void reduce(warp& w, instruction const& i, lane_mask m) {
  members const named(w, i, m, i.b);
  T r[32] = {};
  for (int lane = 0; lane < 32; ++lane) {
    bool first = true;
    for (lane_mask rest = named.of[lane] & m; rest != 0; rest &= rest - 1) {
      T const x = load<T>(w, i.a, std::countr_zero(rest));
      r[lane] = first ? x : F{}(r[lane], x);
      first = false;
    }
  }
  store(w, i.d, r, m);
}
void decode_redux(statement& s) {
  if (!s.take("sync")) throw refusal("redux without .sync");
  int const op = s.need_one({"add", "min", "max", "and", "or", "xor"});
  type const t = s.need_type();
  if (op > 2 ? t != type::b32 : t != type::u32 && t != type::s32) throw refusal("type ." + std::string(name_of(t)));
  s.need(3);
  s.out.d = s.write(0, type::b32);
  s.out.a = s.read(1, type::b32);
  s.out.b = s.read(2, type::b32);
  bool const sign = t == type::s32;
  switch (op) {
    case 0:
      return s(reduce<std::uint32_t, plus>);
    case 1:
      return s(sign ? reduce<std::int32_t, smaller> : reduce<std::uint32_t, smaller>);
    case 2:
      return s(sign ? reduce<std::int32_t, larger> : reduce<std::uint32_t, larger>);
    case 3:
      return s(reduce<std::uint32_t, both>);
    case 4:
      return s(reduce<std::uint32_t, either>);
    default:
      return s(reduce<std::uint32_t, differs>);
  }
}

void active_lanes(warp& w, instruction const& i, lane_mask m) {
  std::uint32_t r[32];
  for (auto& x : r) x = m;
  store(w, i.d, r, m);
}
void decode_activemask(statement& s) {
  if (s.need_type() != type::b32) throw refusal("type of activemask");
  s.need(1);
  s.out.d = s.write(0, type::b32);
  s(active_lanes);
}

}  // namespace

void synchronize_warp(warp& w, instruction const& i, lane_mask m) {
  members const named(w, i, m, i.a);
  ++w.sync_epoch;
}

void add_warp_opcodes(opcode_table& t) {
  t["shfl"] = decode_shuffle;
  t["vote"] = decode_vote;
  t["match"] = decode_match;
  t["redux"] = decode_redux;
  t["activemask"] = decode_activemask;
}

}  // namespace softgpu
