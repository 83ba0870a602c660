#include "exec/warp.hpp"

#include <bit>

#include "report.hpp"

namespace softgpu {

namespace {

std::string describe(warp const& w, instruction const& i, std::string const& more) {
  kernel const& k = *w.in->k;
  origin const& o = k.origins[static_cast<std::size_t>(&i - k.code.data())];
  std::string text(o.text);
  for (char& c : text)
    if (c == '\n' || c == '\t') c = ' ';
  return k.name.substr(0, 120) + ", block " + std::to_string(w.in->index) + ", warp " + std::to_string(w.id) + ", " +
         more + ": " + text + k.places[o.place];
}

void leave(warp& w, int pc) noexcept {
  for (std::size_t lane = 0; lane < 32; ++lane)
    if ((w.active >> lane & 1) != 0) w.lane_pc[lane] = pc;
}

void branch_by_table(warp& w, instruction const& i, lane_mask m) {
  auto const& table = w.in->k->tables[static_cast<std::size_t>(i.target)];
  auto const* const index = w.slot<std::uint32_t>(i.a);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    if ((w.active >> lane & 1) == 0) continue;
    bool const taken = (m >> lane & 1) != 0;
    if (taken && index[lane] >= table.size())
      return fault(w, "branch out of its table", i,
                   "lane " + std::to_string(lane) + ", index " + std::to_string(index[lane]));
    w.lane_pc[lane] = taken ? table[index[lane]] : w.pc + 1;
  }
  pick(w);
}

void arrive(warp& w, instruction const& i, lane_mask m) {
  if (m == 0) {
    ++w.pc;
    return;
  }
  auto const first = static_cast<std::size_t>(std::countr_zero(m));
  std::uint32_t const id = w.slot<std::uint32_t>(i.a)[first];
  if (id >= w.in->barriers.size())
    return fault(w, "bad barrier", i, "there are 16 barriers, this is number " + std::to_string(id));
  barrier& at = w.in->barriers[id];
  bool const aligned = i.option != 0;
  if (aligned && ((w.alive & ~w.waiting) != m || w.waiting != 0))
    complain(w, "divergent barrier", i, "not every live lane of the warp reaches this barrier together");
  if (i.b != 0) {
    std::uint32_t const expected = w.slot<std::uint32_t>(i.b)[first];
    if (expected == 0 || expected % 32 != 0 || (at.expected != 0 && at.expected != expected))
      return fault(w, "bad barrier", i,
                   "the number of threads must be a multiple of 32 and the same for all: " + std::to_string(expected));
    at.expected = expected;
  }
  if (i.run) {
    at.voters += static_cast<std::uint32_t>(std::popcount(m));
    at.votes += static_cast<std::uint32_t>(std::popcount(w.truth(i, i.c, 2) & m));
  }
  leave(w, w.pc + 1);
  if (i.count == 0) {  // bar.arrive goes on
    at.arrived += 32;
    ++w.pc;
    return;
  }
  w.at_barrier = &i;
  w.waiting |= m;
  pick(w);
}

}  // namespace

void fault(warp& w, char const* kind, instruction const& i, std::string const& more) {
  if (!w.in->faulted) report(kind, describe(w, i, more));
  w.in->faulted = true;
}

void complain(warp const& w, char const* kind, instruction const& i, std::string const& more) {
  if (w.in->blamed.insert(&i).second) report(kind, describe(w, i, more));
}

void refused(warp& w, instruction const& i, lane_mask) {
  kernel const& k = *w.in->k;
  fault(w, "unsupported instruction", i, k.refusals[k.origins[static_cast<std::size_t>(&i - k.code.data())].refusal]);
}

void pick(warp& w) noexcept {
  lane_mask const runnable = w.alive & ~w.waiting;
  int low = INT_MAX, second = INT_MAX;
  for (lane_mask rest = runnable; rest != 0; rest &= rest - 1) {
    int const pc = w.lane_pc[static_cast<std::size_t>(std::countr_zero(rest))];
    if (pc < low) {
      second = low;
      low = pc;
    } else if (pc > low && pc < second) {
      second = pc;
    }
  }
  w.active = 0;
  w.pc = low;
  w.next_pc = second;
  for (lane_mask rest = runnable; rest != 0; rest &= rest - 1) {
    int const lane = std::countr_zero(rest);
    if (w.lane_pc[static_cast<std::size_t>(lane)] == low) w.active |= lane_mask{1} << lane;
  }
}

void run(warp& w, std::uint64_t budget) {
  instruction const* const code = w.in->k->code.data();
  std::uint64_t count = 0, lanes = 0;
  if (w.active == 0) pick(w);
  while (w.active != 0 && count < budget) {
    instruction const& i = code[w.pc];
    lane_mask const m = w.active & (w.predicate(i.guard) ^ (i.negate ? ~lane_mask{} : 0));
    ++count;
    lanes += static_cast<std::uint64_t>(std::popcount(m));
    switch (i.kind) {
      case flow::next:
        ++w.pc;
        if (m != 0) i.run(w, i, m);
        break;
      case flow::branch:
        if (m == w.active) {
          w.pc = i.target;
        } else if (m == 0) {
          ++w.pc;
        } else {
          for (std::size_t lane = 0; lane < 32; ++lane)
            if ((w.active >> lane & 1) != 0) w.lane_pc[lane] = (m >> lane & 1) != 0 ? i.target : w.pc + 1;
          pick(w);
        }
        break;
      case flow::table:
        branch_by_table(w, i, m);
        break;
      case flow::barrier:
        arrive(w, i, m);
        break;
      case flow::exit:
        leave(w, w.pc + 1);
        w.alive &= ~m;
        pick(w);
        break;
    }
    if (w.in->faulted) break;
    if (w.pc >= w.next_pc && w.active != 0) {  // where the others wait: together from here
      leave(w, w.pc);
      pick(w);
    }
  }
  w.in->counts->warp_instructions += count;
  w.in->counts->thread_instructions += lanes;
}

}  // namespace softgpu
