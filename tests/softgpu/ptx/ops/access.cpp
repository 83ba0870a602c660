#include "ptx/ops/access.hpp"

#include <bit>
#include <cstring>

namespace softgpu {

namespace {

constexpr int unwritten = static_cast<int>(byte_state::unwritten);
constexpr std::uint64_t eight_written = 0x0101010101010101;
static_assert(static_cast<int>(byte_state::written) == 1);

/// The first byte that nobody wrote, null if there is none. Lengths are those of accesses: powers of two, mostly small.
byte_state const* first_unwritten(byte_state const* bytes, std::size_t n) noexcept {
  std::uint64_t low = eight_written, high = eight_written;
  if (n <= 8) {
    std::memcpy(&low, bytes, n);
  } else if (n == 16) {
    std::memcpy(&low, bytes, 8);
    std::memcpy(&high, bytes + 8, 8);
  } else {
    low = 0;
  }
  if (low == eight_written && high == eight_written) return nullptr;
  return static_cast<byte_state const*>(std::memchr(bytes, unwritten, n));
}
void mark_written(byte_state* bytes, std::size_t n) noexcept {
  switch (n) {
    case 1:
      *bytes = byte_state::written;
      break;
    case 2:
      std::memcpy(bytes, &eight_written, 2);
      break;
    case 4:
      std::memcpy(bytes, &eight_written, 4);
      break;
    case 8:
      std::memcpy(bytes, &eight_written, 8);
      break;
    default:
      std::memset(bytes, static_cast<int>(byte_state::written), n);
  }
}

std::string in_lane(int lane) { return "lane " + std::to_string(lane); }

space space_of(std::uint64_t& a, space named) noexcept {
  if (named != space::generic) return named;
  std::uint64_t const top = a >> 56;
  if (top == 0 || top > 3) return space::global;
  a &= shared_window - 1;
  return top == 1 ? space::shared : top == 2 ? space::local : space::param;
}

void carry_order(warp& w, instruction const& i, std::uint64_t a, access how) {
  launch_order& order = *w.in->order;
  if (i.ordering == order::release || i.ordering == order::acquire_release) order.fence();
  if (how != access::write) order.acquire(a);
  if (how != access::read) order.release(a);
}

void note(warp& w, instruction const& i, allocation& a, std::uint64_t offset, std::uint64_t bytes, int lane,
          access how) {
  bool const strong = i.ordering != order::weak;
  if (strong) carry_order(w, i, a.base + offset, how);
  w.in->order->count_sectors(a, offset, bytes, how);
  auto const clash = w.in->order->touch(a, offset, bytes, how, strong);
  if (clash >= 0)
    complain(w, "global-memory race", i,
             (lane < 0 ? std::string("the warp") : in_lane(lane)) + ", byte " + std::to_string(clash) +
                 " of an allocation of " + std::to_string(a.size) + " is also used by another block of this launch");
}

char* resolve_global(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, int lane, access how,
                     allocation*& last) {
  if (!last || last->state != life::live || last->has_forbidden || a - last->base >= last->size ||
      last->size - (a - last->base) < n) {
    if (auto const bad = memory().problem_at(a, n); bad.kind) {
      fault(w, bad.kind, i, in_lane(lane) + ", " + bad.what);
      return nullptr;
    }
    last = memory().find(a);
  }
  std::uint64_t const offset = a - last->base;
  byte_state* const bytes = last->bytes.data() + offset;
  if (how == access::write) {
    mark_written(bytes, n);
  } else if (auto const* const bad = first_unwritten(bytes, n)) {
    fault(w, "uninitialised read", i,
          in_lane(lane) + ", byte " + std::to_string(bad - last->bytes.data()) + " of an allocation of " +
              std::to_string(last->size));
    return nullptr;
  }
  note(w, i, *last, offset, n, lane, how);
  return memory().real(a);
}

void note_shared(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, int lane, access how) {
  if (i.ordering != order::weak && how != access::atomic) return;
  int const thread = static_cast<int>(w.id) * 32 + lane;
  auto const clash = w.in->shared_uses.touch(static_cast<std::uint32_t>(a), n, thread, w.sync_epoch, how);
  if (clash.thread >= 0)
    complain(w, "shared-memory race", i,
             "thread " + std::to_string(thread) + " uses shared byte " + std::to_string(clash.byte) + " like thread " +
                 std::to_string(clash.thread) + ", with no barrier between");
}

char* resolve_shared(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, int lane, access how) {
  block& b = *w.in;
  if (a >= b.shared.size() || b.shared.size() - a < n) {
    fault(w, "shared memory out of bounds", i,
          in_lane(lane) + ", byte " + std::to_string(a) + " of " + std::to_string(b.shared.size()));
    return nullptr;
  }
  byte_state* const bytes = b.shared_bytes.data() + a;
  if (how == access::write) {
    mark_written(bytes, n);
  } else if (auto const* const bad = first_unwritten(bytes, n)) {
    fault(w, "uninitialised shared read", i, in_lane(lane) + ", byte " + std::to_string(bad - b.shared_bytes.data()));
    return nullptr;
  }
  note_shared(w, i, a, n, lane, how);
  return b.shared.data() + a;
}

char* resolve_local(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, int lane, access how) {
  std::uint64_t const size = w.in->k->local_bytes;
  if (a >= size || size - a < n) {
    fault(w, "local memory out of bounds", i, in_lane(lane));
    return nullptr;
  }
  std::size_t const at = static_cast<std::size_t>(lane) * size + a;
  if (how == access::write) {
    mark_written(w.local_bytes.data() + at, n);
  } else if (first_unwritten(w.local_bytes.data() + at, n)) {
    fault(w, "uninitialised local read", i, in_lane(lane) + ", byte " + std::to_string(a) + " of its local memory");
    return nullptr;
  }
  return w.local.data() + at;
}

}  // namespace

char* resolve(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, int lane, access how,
              allocation*& last) {
  if ((a & (n - 1)) != 0) {
    fault(w, "misaligned address", i, in_lane(lane));
    return nullptr;
  }
  switch (space_of(a, i.where)) {
    case space::shared:
      return resolve_shared(w, i, a, n, lane, how);
    case space::local:
      return resolve_local(w, i, a, n, lane, how);
    case space::param:
      if (how == access::read && a < w.in->l->parameters.size() && w.in->l->parameters.size() - a >= n)
        return const_cast<char*>(w.in->l->parameters.data()) + a;
      fault(w, "parameter out of bounds", i, in_lane(lane));
      return nullptr;
    default:
      return resolve_global(w, i, a, n, lane, how, last);
  }
}

char* resolve_row(warp& w, instruction const& i, std::uint64_t const* a, std::uint32_t n, lane_mask m, access how) {
  if (m != ~lane_mask{} || (a[0] & (n - 1)) != 0) return nullptr;
  std::uint64_t wrong = 0;
  for (std::uint64_t lane = 0; lane < 32; ++lane) wrong |= a[lane] - a[0] - lane * n;
  if (wrong != 0) return nullptr;
  std::uint64_t first = a[0];
  std::uint64_t const row = std::uint64_t{32} * n;
  space const where = space_of(first, i.where);
  if (where == space::shared) {
    block& b = *w.in;
    if (first >= b.shared.size() || b.shared.size() - first < row) return nullptr;
    if (how == access::write) std::memset(b.shared_bytes.data() + first, static_cast<int>(byte_state::written), row);
    else if (std::memchr(b.shared_bytes.data() + first, unwritten, row)) return nullptr;
    for (int lane = 0; lane < 32; ++lane) note_shared(w, i, first + static_cast<std::uint32_t>(lane) * n, n, lane, how);
    return b.shared.data() + first;
  }
  if (where != space::global || !memory().contains(reinterpret_cast<void const*>(first))) return nullptr;
  allocation* const found = memory().find(first);
  if (!found || found->state != life::live || found->has_forbidden || found->size < row ||
      first - found->base > found->size - row)
    return nullptr;
  byte_state* const bytes = found->bytes.data() + (first - found->base);
  if (how == access::write) std::memset(bytes, static_cast<int>(byte_state::written), row);
  else if (std::memchr(bytes, unwritten, row)) return nullptr;
  note(w, i, *found, first - found->base, row, -1, how);
  ++w.in->counts->requests;
  return memory().real(first);
}

char* resolve_broadcast(warp& w, instruction const& i, std::uint64_t a, std::uint32_t n, lane_mask m,
                        allocation*& last) {
  int const first = std::countr_zero(m), other = 31 - std::countl_zero(m);
  char* const p = resolve(w, i, a, n, first, access::read, last);
  // Of all that read between two barriers, two are remembered.
  if (p && other != first && space_of(a, i.where) == space::shared) note_shared(w, i, a, n, other, access::read);
  return p;
}

}  // namespace softgpu
