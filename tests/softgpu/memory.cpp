#include "memory.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "report.hpp"

namespace softgpu {

template <class T>
void lazy_array<T>::resize(std::size_t count) {
  data_.reset(static_cast<T*>(std::calloc(count + 1, sizeof(T))));
  if (!data_) throw std::bad_alloc();
  size_ = count;
}
template <class T>
void lazy_array<T>::release::operator()(void* p) const noexcept {
  std::free(p);
}
template class lazy_array<std::uint32_t>;

device_memory& memory() {
  static auto* const m = new device_memory;
  return *m;
}

device_memory::device_memory() {
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const hidden = mmap(nullptr, window, PROT_NONE, flags, -1, 0);
  void* const open = mmap(nullptr, window, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (hidden == MAP_FAILED || open == MAP_FAILED) {
    std::perror("softgpu: mmap");
    std::abort();
  }
  base_ = reinterpret_cast<std::uint64_t>(hidden);
  alias_ = static_cast<char*>(open);
  next_ = base_ + 4096;
}

std::uint64_t device_memory::allocate(std::uint64_t bytes, life state, owner belongs_to) {
  std::uint64_t const p = (next_ + 255) & ~std::uint64_t{255};
  if (bytes > window || p + bytes + gap > base_ + window) return 0;
  next_ = p + bytes + gap;
  allocation a;
  a.base = p;
  a.size = bytes;
  a.state = state;
  a.belongs_to = belongs_to;
  a.bytes.assign(bytes, byte_state::unwritten);
  allocations_[p] = std::move(a);
  std::memset(real(p), 0xFF, bytes);  // NaN or -1, so that a value used by mistake shows
  hit_ = nullptr;
  return p;
}

void device_memory::set_live(std::uint64_t p) { allocations_.at(p).state = life::live; }

bool device_memory::release(std::uint64_t p, char const* who) {
  auto const it = allocations_.find(p);
  if (it == allocations_.end()) {
    report("bad free", std::string(who) + " of a pointer that is no allocation");
    return false;
  }
  allocation& a = it->second;
  if (a.state != life::live) {
    report("bad free",
           std::string(who) + (a.state == life::freed ? ": double free" : ": not yet allocated in stream order"));
    return false;
  }
  a.state = life::freed;
  std::uint64_t const low = (reinterpret_cast<std::uint64_t>(real(p)) + 4095) & ~std::uint64_t{4095};
  std::uint64_t const high = reinterpret_cast<std::uint64_t>(real(p) + a.size) & ~std::uint64_t{4095};
  if (high > low) madvise(reinterpret_cast<void*>(low), high - low, MADV_DONTNEED);
  a.bytes = {};
  for (auto* shadow : {&a.writer, &a.reader, &a.strong, &a.sector_read, &a.sector_written}) shadow->clear();
  return true;
}

allocation* device_memory::find(std::uint64_t a) {
  if (hit_ && a - hit_->base < hit_->size) return hit_;
  auto const it = allocations_.upper_bound(a);
  return it == allocations_.begin() ? nullptr : hit_ = &std::prev(it)->second;
}

device_memory::problem device_memory::problem_at(std::uint64_t p, std::uint64_t n) {
  allocation const* const a = find(p);
  auto const where = [&] {
    return std::to_string(n) + " bytes at " + std::to_string(p - a->base) + " of an allocation of " +
           std::to_string(a->size);
  };
  if (!a || !contains(reinterpret_cast<void*>(p))) {
    char text[64];
    std::snprintf(text, sizeof text, "0x%llx is not device memory", static_cast<unsigned long long>(p));
    return {"out of bounds", text};
  }
  if (n > a->size || p - a->base > a->size - n) return {"out of bounds", where()};
  if (a->state == life::freed) return {"use after free", where()};
  if (a->state == life::reserved) return {"use before stream-ordered allocation", where()};
  if (a->has_forbidden && std::memchr(a->bytes.data() + (p - a->base), static_cast<int>(byte_state::forbidden), n))
    return {"out of bounds", "between the parts of an arena, " + where()};
  return {};
}

char* device_memory::check(std::uint64_t p, std::uint64_t n, char const* what, allocation** found) {
  if (n == 0) return contains(reinterpret_cast<void*>(p)) ? real(p) : alias_;
  if (auto const bad = problem_at(p, n); bad.kind) {
    report(bad.kind, std::string(what) + ": " + bad.what);
    return nullptr;
  }
  if (found) *found = find(p);
  return real(p);
}

bool device_memory::require_written(std::uint64_t p, std::uint64_t n, char const* what) {
  if (n == 0) return true;
  allocation const& a = *find(p);
  void const* const bad = std::memchr(a.bytes.data() + (p - a.base), static_cast<int>(byte_state::unwritten), n);
  if (bad)
    report("uninitialised read", std::string(what) + ": byte " +
                                     std::to_string(static_cast<byte_state const*>(bad) - a.bytes.data()) + " of " +
                                     std::to_string(a.size));
  return !bad;
}

void device_memory::mark(std::uint64_t p, std::uint64_t n, byte_state state) {
  if (n == 0) return;
  allocation& a = *find(p);
  std::memset(a.bytes.data() + (p - a.base), static_cast<int>(state), n);
}

void device_memory::copy(std::uint64_t to, std::uint64_t from, std::uint64_t n) {
  if (n == 0) return;
  std::memmove(real(to), real(from), n);
  auto const& source = *find(from);
  auto const& target = *find(to);
  std::memmove(const_cast<byte_state*>(&target.bytes[to - target.base]), &source.bytes[from - source.base], n);
}

void device_memory::forbid(std::uint64_t a, std::uint64_t n) {
  if (n == 0 || !check(a, 1, "protected range")) return;
  find(a)->has_forbidden = true;
  mark(a, n, byte_state::forbidden);
}

void device_memory::allow(std::uint64_t a, std::uint64_t n) {
  if (n == 0) return;
  mark(a, n, byte_state::unwritten);
  std::memset(real(a), 0xFF, n);
}

int device_memory::leaks() const noexcept {
  int n = 0;
  for (auto const& [p, a] : allocations_) n += a.state == life::live && a.belongs_to == owner::program;
  return n;
}

std::uint64_t device_memory::live_bytes() const noexcept {
  std::uint64_t n = 0;
  for (auto const& [p, a] : allocations_)
    if (a.state == life::live && a.belongs_to == owner::program) n += a.size;
  return n;
}

}  // namespace softgpu
