#include "exec/launch.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>

#include "exec/warp.hpp"
#include "report.hpp"

namespace softgpu {

namespace {

// A warp that spins on what another one will write must let it run.
constexpr std::uint64_t slice = 20000;
// Warp instructions of one block after which nobody believes in its end.
constexpr std::uint64_t patience = 100'000'000;

struct device_counts {
  statistics total, last;
  std::map<std::string, statistics> by_kernel;
};
device_counts& counts() {
  static auto* const c = new device_counts;  // used from atexit
  return *c;
}
launch_order& order() {
  static auto* const o = new launch_order;
  return *o;
}
bool warps_run_backwards() {
  static bool const reverse = [] {
    char const* const wish = std::getenv("SOFTGPU_WARP_ORDER");
    return wish && std::strcmp(wish, "reverse") == 0;
  }();
  return reverse;
}

/// Register files of launches that are over: they are large, and most launches are small.
std::vector<std::vector<char>>& used_files() {
  static auto* const files = new std::vector<std::vector<char>>;
  return *files;
}

class grid {
 public:
  grid(kernel const& k, launch const& l) : k_(k), l_(l), threads_(l.block[0] * l.block[1] * l.block[2]) {
    block_.k = &k;
    block_.l = &l;
    block_.order = &order();
    block_.counts = &counts_;
    block_.shared.resize(k.static_shared + l.dynamic_shared);
    block_.shared_bytes.resize(block_.shared.size());
    block_.shared_uses.resize(block_.shared.size());
    warps_.resize((threads_ + 31) / 32);
    for (std::uint32_t n = 0; n < warps_.size(); ++n) prepare(warps_[n], n);
  }
  grid(grid const&) = delete;
  grid& operator=(grid const&) = delete;
  ~grid() {
    for (warp& w : warps_) used_files().push_back(std::move(w.storage));
  }

  outcome run() {
    std::uint64_t const blocks = std::uint64_t{l_.grid[0]} * l_.grid[1] * l_.grid[2];
    order().begin_launch(blocks);
    for (std::uint64_t b = 0; b < blocks && !block_.faulted; ++b) {
      begin_block(b);
      run_block();
    }
    counts_.launches = 1;
    counts_.sectors_read = order().sectors_read();
    counts_.sectors_written = order().sectors_written();
    counts().last = counts_;
    counts().total += counts_;
    counts().by_kernel[k_.name] += counts_;
    return block_.faulted ? outcome::faulted : outcome::completed;
  }

 private:
  template <class F>
  void fill(warp const& w, kernel::special which, F value) {
    if (auto const slot = k_.specials[which]; slot != 0)
      for (std::uint32_t lane = 0; lane < 32; ++lane) w.slot<std::uint32_t>(slot)[lane] = value(lane);
  }

  void prepare(warp& w, std::uint32_t number) {
    w.in = &block_;
    w.id = number;
    if (!used_files().empty()) {
      w.storage = std::move(used_files().back());
      used_files().pop_back();
    }
    if (w.storage.size() < k_.file_bytes + 64) w.storage.resize(k_.file_bytes + 64);
    w.local.resize(std::size_t{32} * k_.local_bytes);
    w.local_bytes.resize(w.local.size());
    w.file = w.storage.data() + (64 - reinterpret_cast<std::uintptr_t>(w.storage.data()) % 64) % 64;
    std::memcpy(w.file, k_.file_image.data(), 64);
    if (k_.first_constant != 0)
      std::memcpy(w.file + k_.first_constant, k_.file_image.data() + k_.first_constant,
                  k_.file_image.size() - k_.first_constant);
    auto const thread = [number](std::uint32_t lane) { return number * 32 + lane; };
    auto const [x, y, z] = l_.block;
    fill(w, kernel::tid_x, [&, x = x](auto lane) { return thread(lane) % x; });
    fill(w, kernel::tid_y, [&, x = x, y = y](auto lane) { return thread(lane) / x % y; });
    fill(w, kernel::tid_z, [&, x = x, y = y](auto lane) { return thread(lane) / x / y; });
    for (std::uint8_t d = 0; d < 3; ++d) {
      fill(w, static_cast<kernel::special>(kernel::ntid_x + d), [&](auto) { return l_.block[d]; });
      fill(w, static_cast<kernel::special>(kernel::nctaid_x + d), [&](auto) { return l_.grid[d]; });
    }
    fill(w, kernel::laneid, [](auto lane) { return lane; });
    fill(w, kernel::warpid, [&](auto) { return number; });
    fill(w, kernel::nwarpid, [&](auto) { return 64U; });
    fill(w, kernel::smid, [](auto) { return 0U; });
    fill(w, kernel::nsmid, [](auto) { return 1U; });
    fill(w, kernel::dynamic_smem_size, [&](auto) { return l_.dynamic_shared; });
    fill(w, kernel::total_smem_size, [&](auto) { return k_.static_shared + l_.dynamic_shared; });
  }

  void begin_block(std::uint64_t number) {
    order().begin_block();
    block_.index = static_cast<std::uint32_t>(number);
    block_.shared_uses.next_epoch();
    block_.barriers = {};
    std::fill(block_.shared_bytes.begin(), block_.shared_bytes.end(), byte_state::unwritten);
    std::uint64_t const id[3] = {number % l_.grid[0], number / l_.grid[0] % l_.grid[1],
                                 number / l_.grid[0] / l_.grid[1]};
    for (warp& w : warps_) {
      std::uint32_t const left = threads_ - w.id * 32;
      w.alive = left >= 32 ? ~lane_mask{} : (lane_mask{1} << left) - 1;
      w.waiting = w.active = w.carry = 0;
      w.arrived = false;
      w.async_group = 0;
      w.async_copies.clear();
      w.lane_pc.fill(0);
      std::fill(w.local_bytes.begin(), w.local_bytes.end(), byte_state::unwritten);
      for (std::uint8_t d = 0; d < 3; ++d)
        fill(w, static_cast<kernel::special>(kernel::ctaid_x + d),
             [&](auto) { return static_cast<std::uint32_t>(id[d]); });
    }
  }

  void run_block() {
    std::uint64_t const before = counts_.warp_instructions;
    for (;;) {
      bool any = false;
      for (std::size_t n = 0; n < warps_.size() && !block_.faulted; ++n) {
        warp& w = warps_[warps_run_backwards() ? warps_.size() - 1 - n : n];
        if ((w.alive & ~w.waiting) == 0) continue;
        softgpu::run(w, slice);
        any = true;
      }
      if (block_.faulted) return;
      bool const released = release_barriers();
      if (std::none_of(warps_.begin(), warps_.end(), [](warp const& w) { return w.alive != 0; })) return;
      if (!any && !released) {
        auto const stuck = std::find_if(warps_.begin(), warps_.end(), [](warp const& w) { return w.waiting != 0; });
        return fault(*stuck, "barrier never completes", *stuck->at_barrier,
                     "the other threads have gone or wait elsewhere");
      }
      if (counts_.warp_instructions - before > patience) {
        report("no progress", k_.name + ", block " + std::to_string(block_.index));
        block_.faulted = true;
        return;
      }
    }
  }

  std::uint32_t barrier_of(warp const& w) const {
    return w.slot<std::uint32_t>(w.at_barrier->a)[std::countr_zero(w.waiting)];
  }

  bool release_barriers() {
    std::uint32_t live = 0;
    for (warp& w : warps_) {
      live += w.alive != 0;
      if (w.waiting == 0 || w.waiting != w.alive || w.arrived) continue;
      w.arrived = true;
      block_.barriers[barrier_of(w)].arrived += 32;
    }
    bool any = false;
    for (std::uint32_t id = 0; id < block_.barriers.size(); ++id) {
      barrier& b = block_.barriers[id];
      if (b.arrived == 0 || b.arrived < (b.expected != 0 ? b.expected : 32 * live)) continue;
      any = true;
      block_.shared_uses.next_epoch();
      for (warp& w : warps_) {
        if (!w.arrived || barrier_of(w) != id) continue;
        if (w.at_barrier->run) w.at_barrier->run(w, *w.at_barrier, w.waiting);
        w.waiting = w.active = 0;
        w.arrived = false;
      }
      b = {};
    }
    return any;
  }

  kernel const& k_;
  launch const& l_;
  std::uint32_t threads_;
  statistics counts_;
  block block_;
  std::vector<warp> warps_;
};

}  // namespace

outcome execute(kernel const& k, launch const& l) { return grid(k, l).run(); }

statistics& statistics::operator+=(statistics const& other) noexcept {
  launches += other.launches;
  warp_instructions += other.warp_instructions;
  thread_instructions += other.thread_instructions;
  requests += other.requests;
  sectors_read += other.sectors_read;
  sectors_written += other.sectors_written;
  return *this;
}

statistics total_statistics() { return counts().total; }
statistics kernel_statistics(std::string const& name) {
  auto const it = counts().by_kernel.find(name);
  return it == counts().by_kernel.end() ? statistics{} : it->second;
}
statistics const& last_launch() noexcept { return counts().last; }
std::vector<std::string> launched_kernels() {
  std::vector<std::string> names;
  for (auto const& [name, s] : counts().by_kernel) names.push_back(name);
  return names;
}
void clear_statistics() { counts() = {}; }

}  // namespace softgpu
