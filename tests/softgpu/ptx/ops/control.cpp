// Branches, calls, barriers, fences, and what only says something about speed.
#include <bit>

#include "ptx/ops/lanes.hpp"

namespace softgpu {

void synchronize_warp(warp& w, instruction const& i, lane_mask m);

namespace {

void nothing(warp&, instruction const&, lane_mask) {}
void trap(warp& w, instruction const& i, lane_mask) { fault(w, "trap or assertion", i, "device code stopped"); }

void decode_bra(statement& s) {
  s.allow({"uni"});
  s.need(1);
  s.out.kind = flow::branch;
  s.context().label_later(s.operand(0));
}
void decode_brx(statement& s) {
  if (!s.take("idx")) throw refusal("brx without .idx");
  s.allow({"uni"});
  s.need(2);
  s.out.kind = flow::table;
  s.out.a = s.read(0, type::u32);
  s.context().table_later(s.operand(1));
}
void decode_exit(statement& s) {
  s.need(0);
  s.out.kind = flow::exit;
}
void decode_ret(statement& s) {
  s.allow({"uni"});
  s.need(0);
  s.context().return_later(s.out);
}
void decode_trap(statement& s) {
  s.need(0);
  s(trap);
}

void zero_result(warp& w, instruction const& i, lane_mask m) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((m >> lane & 1) == 0) continue;
    std::size_t const at = static_cast<std::size_t>(lane) * w.in->k->local_bytes + static_cast<std::size_t>(i.offset);
    std::fill_n(w.local.begin() + static_cast<std::ptrdiff_t>(at), 4, 0);
    std::fill_n(w.local_bytes.begin() + static_cast<std::ptrdiff_t>(at), 4, byte_state::written);
  }
}
void decode_call(statement& s) {
  s.allow({"uni"});
  for (std::size_t n = 0; n < s.count(); ++n) {
    if (s.operand(n) == "__assertfail") return s(trap);
    if (s.operand(n) == "vprintf") {  // says nothing, and that it printed nothing
      auto const result = s.operand(0);
      auto const to = s.context().find(result.substr(1, result.size() - 2));
      if (n != 1 || !to || to->is != symbol::local) throw refusal("result of vprintf");
      s.out.offset = static_cast<std::int64_t>(to->at);
      return s(zero_result);
    }
  }
  s.finish();
  s.context().call(s);
}

// ---- barriers

enum class vote_mode : std::uint8_t { any, all, count };
template <vote_mode Mode>
void barrier_vote(warp& w, instruction const& i, lane_mask m) {  // when the barrier opens
  barrier const& b = w.in->barriers[load<std::uint32_t>(w, i.a, std::countr_zero(m))];
  if (Mode == vote_mode::count) {
    std::uint32_t r[32];
    for (auto& x : r) x = b.votes;
    store(w, i.d, r, m);
  } else {
    w.set_predicate(i.d, (Mode == vote_mode::any ? b.votes != 0 : b.votes == b.voters) ? ~lane_mask{} : 0, m);
  }
}
/// bar and barrier differ in what they assume: bar is aligned, all lanes of a warp together.
void decode_barrier(statement& s) {
  s.allow({"cta"});
  if (s.take("warp")) {
    if (!s.take("sync")) throw refusal("bar.warp without .sync");
    s.need(1);
    s.out.a = s.read(0, type::b32);
    return s(synchronize_warp);
  }
  int const what = s.need_one({"sync", "red", "arrive"});
  s.out.kind = flow::barrier;
  s.out.option = s.opcode() == "bar" || s.take("aligned") ? 1 : 0;
  if (what == 1) {
    static constexpr handler modes[] = {barrier_vote<vote_mode::any>, barrier_vote<vote_mode::all>,
                                        barrier_vote<vote_mode::count>};
    int const mode = s.need_one({"or", "and", "popc"});
    type const t = s.need_type();
    if (t != (mode == 2 ? type::u32 : type::pred)) throw refusal("type of bar.red");
    s.need_between(3, 4);
    s.out.d = s.write(0, t);
    s.out.a = s.read(1, type::u32);
    if (s.count() == 4) s.out.b = s.read(2, type::u32);
    s.out.c = s.read_predicate(s.count() - 1, 2);
    return s(modes[mode]);
  }
  s.need_between(what == 2 ? 2 : 1, 2);
  s.out.a = s.read(0, type::u32);
  if (s.count() == 2) s.out.b = s.read(1, type::u32);
  s.out.count = what == 2 ? 0 : 1;
}

// ---- order of memory

void fence(warp& w, instruction const&, lane_mask) { w.in->order->fence(); }
void decode_fence(statement& s) {
  bool const old = s.opcode() == "membar";
  if (!old) s.take_one({"sc", "acq_rel", "acquire", "release"});
  s.need(0);
  int const scope = old ? s.need_one({"cta", "gl", "sys"}) : s.need_one({"cta", "gpu", "sys"});
  s(scope == 0 ? nothing : fence);
}

// ---- hints

void decode_nanosleep(statement& s) {
  if (s.need_type() != type::u32) throw refusal("type of nanosleep");
  s.need(1);
  s.read(0, type::u32);
  s(nothing);
}
void decode_prefetch(statement& s) {
  s.allow({"global", "L1", "L2", "L2::evict_last", "L2::evict_normal"});
  s.need(1);
  s.address(0);
  s(nothing);
}
/// Kernels of a stream run one after another here, so there is nothing to wait for.
void decode_dependents(statement& s) {
  s.need_one({"wait", "launch_dependents"});
  s.need(0);
  s(nothing);
}

}  // namespace

void add_control_opcodes(opcode_table& t) {
  t["bra"] = decode_bra;
  t["brx"] = decode_brx;
  t["exit"] = decode_exit;
  t["ret"] = decode_ret;
  t["trap"] = t["brkpt"] = decode_trap;
  t["call"] = decode_call;
  t["bar"] = t["barrier"] = decode_barrier;
  t["fence"] = t["membar"] = decode_fence;
  t["nanosleep"] = decode_nanosleep;
  t["prefetch"] = t["prefetchu"] = decode_prefetch;
  t["griddepcontrol"] = decode_dependents;
}

}  // namespace softgpu
