// cp.async: the source is read when the copy is issued, the target written when it is waited for. Until then the target
// counts as unwritten, so that code which forgets to wait is found out.
#include <algorithm>
#include <cstring>

#include "ptx/ops/access.hpp"
#include "ptx/ops/lanes.hpp"

namespace softgpu {

namespace {

void issue(warp& w, instruction const& i, lane_mask m) {
  allocation* last = nullptr;
  for (int lane = 0; lane < 32; ++lane) {
    if ((m >> lane & 1) == 0) continue;
    std::uint64_t const from = load<std::uint64_t>(w, i.b, lane) + static_cast<std::uint32_t>(i.target);
    std::uint32_t const to = static_cast<std::uint32_t>(address_of(w, i, lane));
    std::uint32_t const wanted =
        i.c == 0 ? i.bytes : std::min<std::uint32_t>(load<std::uint32_t>(w, i.c, lane), i.bytes);
    async_copy copy{w.async_group, to, i.bytes, lane, {}};
    if ((from & (i.bytes - 1)) != 0 || (to & (i.bytes - 1)) != 0)
      return fault(w, "misaligned address", i, "lane " + std::to_string(lane));
    if (wanted != 0) {  // the rest is filled with zeros
      if ((wanted & (wanted - 1)) != 0) return fault(w, "unsupported instruction", i, "cp.async of an odd part");
      char const* const p = resolve(w, i, from, wanted, lane, access::read, last);
      if (!p) return;
      std::memcpy(copy.data.data(), p, wanted);
    }
    if (to >= w.in->shared_bytes.size() || w.in->shared_bytes.size() - to < i.bytes)
      return fault(w, "shared memory out of bounds", i, "lane " + std::to_string(lane));
    std::memset(w.in->shared_bytes.data() + to, static_cast<int>(byte_state::unwritten), i.bytes);
    w.async_copies.push_back(copy);
  }
  ++w.in->counts->requests;
}

void commit(warp& w, instruction const&, lane_mask) { ++w.async_group; }

void wait_for_all_but(warp& w, instruction const& i, std::uint32_t groups) {
  auto const finished = [&](async_copy const& c) {
    return w.async_group - c.group > groups || (groups == 0 && i.option == 1);
  };
  for (async_copy const& c : w.async_copies) {
    if (!finished(c)) continue;
    std::memcpy(w.in->shared.data() + c.shared_byte, c.data.data(), c.bytes);
    std::memset(w.in->shared_bytes.data() + c.shared_byte, static_cast<int>(byte_state::written), c.bytes);
    int const thread = static_cast<int>(w.id) * 32 + c.lane;
    auto const clash = w.in->shared_uses.touch(c.shared_byte, c.bytes, thread, w.sync_epoch, access::write);
    if (clash.thread >= 0)
      complain(w, "shared-memory race", i,
               "an asynchronous copy of thread " + std::to_string(thread) + " ends in shared byte " +
                   std::to_string(clash.byte) + ", which thread " + std::to_string(clash.thread) +
                   " uses, with no barrier between");
  }
  std::erase_if(w.async_copies, finished);
}
void wait_group(warp& w, instruction const& i, lane_mask) {
  wait_for_all_but(w, i, static_cast<std::uint32_t>(i.target));
}
/// Also of what has not been committed.
void wait_all(warp& w, instruction const& i, lane_mask) { wait_for_all_but(w, i, 0); }

void decode_copy(statement& s) {
  if (!s.take("async")) throw refusal("cp without .async");
  if (s.take("commit_group")) {
    s.need(0);
    return s(commit);
  }
  if (s.take("wait_all")) {
    s.need(0);
    s.out.option = 1;
    return s(wait_all);
  }
  if (s.take("wait_group")) {
    s.need(1);
    s.out.target = static_cast<std::int32_t>(s.literal(0));
    return s(wait_group);
  }
  s.need_one({"ca", "cg"});
  s.need_one({"shared", "shared::cta"});
  s.need_one({"global"});
  s.allow({"L2::64B", "L2::128B", "L2::256B"});
  s.need_between(3, 4);
  std::uint32_t const bytes = s.literal(2);
  if (bytes != 4 && bytes != 8 && bytes != 16) throw refusal("cp.async of " + std::to_string(bytes) + " bytes");
  s.address(1);
  if ((s.out.wide & 2) == 0) throw refusal("cp.async from a 32-bit address");
  s.out.b = s.out.a;
  s.out.target = static_cast<std::int32_t>(s.out.offset);
  s.out.wide = 0;
  s.address(0);
  if (s.count() == 4) s.out.c = s.read(3, type::b32);
  s.out.bytes = static_cast<std::uint8_t>(bytes);
  s.out.where = space::global;
  s(issue);
}

}  // namespace

void add_async_opcodes(opcode_table& t) { t["cp"] = decode_copy; }

}  // namespace softgpu
