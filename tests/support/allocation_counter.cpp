#include "support/allocation_counter.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define LOWRANK_TEST_WATCHES 0
#else
#define LOWRANK_TEST_WATCHES 1
#endif

namespace {

std::atomic<long> allocations{0}, aligned{0};

}  // namespace

#if LOWRANK_TEST_WATCHES
// operator new of every kind ends in one of these.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, bytes);
}
void* realloc(void* block, std::size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(block, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  aligned.fetch_add(static_cast<long>((bytes + alignment - 1) / alignment * alignment), std::memory_order_relaxed);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept { return memalign(alignment, bytes); }
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) noexcept {
  *block = memalign(alignment, bytes);
  return *block != nullptr ? 0 : ENOMEM;
}
}
#endif

namespace lowrank_test {

allocation_counter::allocation_counter() noexcept : before_{allocations.load()}, bytes_before_{aligned.load()} {}
allocation_counter::~allocation_counter() = default;
long allocation_counter::count() const noexcept { return allocations.load() - before_; }
long allocation_counter::aligned_bytes() const noexcept { return aligned.load() - bytes_before_; }
bool allocation_counter::watches() noexcept { return LOWRANK_TEST_WATCHES != 0; }

}  // namespace lowrank_test
