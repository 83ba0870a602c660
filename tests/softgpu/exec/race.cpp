#include "exec/race.hpp"

#include <algorithm>

namespace softgpu {

// ---- between blocks ----------------------------------------------------------------------------------------------

void launch_order::begin_launch(std::size_t blocks) {
  ++launch_number_;
  launch_first_ = block_first_ = ++era_;
  blocks_ = blocks;
  first_era_.clear();
  released_.clear();
  released_at_.clear();
  any_fence_ = false;
  acquired_.clear();
  sectors_read_ = sectors_written_ = 0;
}

void launch_order::begin_block() {
  block_first_ = ++era_;
  first_era_.push_back(era_);
  released_.push_back(0);
  if (!acquired_.empty()) std::fill(acquired_.begin(), acquired_.end(), 0);
}

void launch_order::fence() noexcept {
  released_.back() = era_++;
  any_fence_ = true;
}

void launch_order::release(std::uint64_t address) {
  if (!any_fence_ || (released_.back() == 0 && acquired_.empty())) return;
  auto& set = released_at_[address & ~std::uint64_t{7}];
  if (set.empty()) set.resize((blocks_ + 63) / 64);
  std::size_t const me = first_era_.size() - 1;
  if (released_.back() != 0) set[me / 64] |= std::uint64_t{1} << (me % 64);
  for (std::size_t n = 0; n < acquired_.size(); ++n) set[n] |= acquired_[n];  // order is transitive
}

void launch_order::acquire(std::uint64_t address) {
  if (!any_fence_) return;
  auto const it = released_at_.find(address & ~std::uint64_t{7});
  if (it == released_at_.end()) return;
  if (acquired_.empty()) acquired_.resize((blocks_ + 63) / 64);
  for (std::size_t n = 0; n < acquired_.size(); ++n) acquired_[n] |= it->second[n];
}

bool launch_order::is_ordered(std::uint32_t era) const noexcept {
  if (acquired_.empty()) return false;
  auto const block =
      static_cast<std::size_t>(std::upper_bound(first_era_.begin(), first_era_.end(), era) - first_era_.begin()) - 1;
  return (acquired_[block / 64] >> (block % 64) & 1) != 0 && era <= released_[block];
}

void launch_order::shadow(allocation& a, std::uint64_t offset, std::uint64_t bytes) const {
  if (a.writer.empty()) {
    a.writer.resize((a.size >> a.granule_shift) + 1);
    a.reader.resize((a.size >> a.granule_shift) + 1);
  }
  if (a.granule_shift == 0 || ((offset | bytes) & 3) == 0) return;
  for (auto* const stamps : {&a.writer, &a.reader, &a.strong}) {
    if (stamps->empty()) continue;
    lazy_array<std::uint32_t> fine;
    fine.resize(a.size + 1);
    for (std::size_t n = 0; n < a.size; ++n)
      if (auto const era = (*stamps)[n >> a.granule_shift]; era != 0) fine[n] = era;
    *stamps = std::move(fine);
  }
  a.granule_shift = 0;
}

std::ptrdiff_t launch_order::touch(allocation& a, std::uint64_t offset, std::uint64_t bytes, access how, bool strong) {
  shadow(a, offset, bytes);
  std::size_t const first = offset >> a.granule_shift, last = (offset + bytes - 1) >> a.granule_shift;
  std::uint32_t const launch = launch_first_, span = block_first_ - launch_first_, era = era_;
  std::uint32_t* const writer = a.writer.data();
  std::uint32_t* const reader = a.reader.data();
  std::uint32_t bad = 0;
  if (strong) {
    if (a.strong.empty()) a.strong.resize((a.size >> a.granule_shift) + 1);
    for (std::size_t n = first; n <= last; ++n) {
      bad |= writer[n] - launch < span;
      if (how != access::read) {
        bad |= reader[n] - launch < span;
        a.strong[n] = era;
      }
    }
  } else if (how == access::read) {
    for (std::size_t n = first; n <= last; ++n) {
      bad |= writer[n] - launch < span;
      reader[n] = reader[n] < launch ? era : reader[n];
    }
  } else {
    for (std::size_t n = first; n <= last; ++n) {
      bad |=
          static_cast<std::uint32_t>(writer[n] - launch < span) | static_cast<std::uint32_t>(reader[n] - launch < span);
    }
  }
  bool const mixes = !strong && !a.strong.empty();
  if (mixes)
    for (std::size_t n = first; n <= last; ++n) bad |= a.strong[n] - launch < span;
  std::ptrdiff_t where = -1;
  if (bad != 0)
    for (std::size_t n = first; n <= last && where < 0; ++n) {
      bool const clash = (earlier_block(writer[n]) && !is_ordered(writer[n])) ||
                         (how != access::read && earlier_block(reader[n]) && !is_ordered(reader[n])) ||
                         (mixes && earlier_block(a.strong[n]) && !is_ordered(a.strong[n]));
      if (clash) where = static_cast<std::ptrdiff_t>(n << a.granule_shift);
    }
  if (!strong && how != access::read)
    for (std::size_t n = first; n <= last; ++n) writer[n] = era;
  return where;
}

void launch_order::count_sectors(allocation& a, std::uint64_t offset, std::uint64_t bytes, access how) {
  if (a.sector_read.empty()) {
    a.sector_read.resize(a.size / 32 + 1);
    a.sector_written.resize(a.size / 32 + 1);
  }
  for (std::size_t n = offset / 32; n <= (offset + bytes - 1) / 32; ++n) {
    if (how != access::write) {
      sectors_read_ += a.sector_read[n] != launch_number_;
      a.sector_read[n] = launch_number_;
    }
    if (how != access::read) {
      sectors_written_ += a.sector_written[n] != launch_number_;
      a.sector_written[n] = launch_number_;
    }
  }
}

// ---- between threads of a block ----------------------------------------------------------------------------------

void shared_order::resize(std::size_t bytes) {
  bytes_ = bytes;
  shift_ = 2;
  granules_.assign((bytes >> shift_) + 1, {});
}

void shared_order::use_bytes() {
  std::vector<granule> fine(bytes_ + 1);
  for (std::size_t n = 0; n < bytes_; ++n) fine[n] = granules_[n >> shift_];
  granules_ = std::move(fine);
  shift_ = 0;
}

}  // namespace softgpu
