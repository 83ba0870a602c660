#pragma once

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "lowrank/core/config.hpp"

namespace lowrank::detail {

/// Fork-join pool: `run` hands tasks 0 ... count-1 to whoever is free and returns when all are done. Which thread runs
/// a task is not fixed; what a task computes must not depend on it. Workers spin briefly before they sleep, because the
/// gaps between the products of one step are shorter than a wake-up.
class thread_pool {
 public:
  using task = void (*)(void* context, index_t number, int worker);

  explicit thread_pool(int threads) {
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    try {
      for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { serve(worker); });
    } catch (...) {  // the system has no more threads to give
      shut_down();
      throw;
    }
  }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;
  ~thread_pool() { shut_down(); }

  [[nodiscard]] int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// Tasks must not throw. Called inside a task it runs serially, as the worker of that task, so nested calls are
  /// legal, cannot deadlock and share nothing with other workers.
  void run(index_t count, void* context, task call) noexcept {
    if (workers_.empty() || count <= 1 || busy_) {
      int const worker = here_.pool == this ? here_.worker : 0;
      for (index_t number = 0; number < count; ++number) call(context, number, worker);
      return;
    }
    busy_ = true;
    context_ = context;
    call_ = call;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    gate_.store(open, std::memory_order_release);
    announce();
    work(0);
    gate_.fetch_and(~open, std::memory_order_acq_rel);
    for (int spin = 0; gate_.load(std::memory_order_acquire) != 0; ++spin) relax(spin);
    busy_ = false;
  }

 private:
  void announce() noexcept {
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }
  void shut_down() noexcept {
    stop_.store(true, std::memory_order_relaxed);
    announce();
    for (auto& worker : workers_) worker.join();
  }
  void work(int worker) noexcept {
    auto const outside = std::exchange(here_, {this, worker});
    for (index_t number = next_.fetch_add(1, std::memory_order_relaxed); number < count_;
         number = next_.fetch_add(1, std::memory_order_relaxed))
      call_(context_, number, worker);
    here_ = outside;
  }
  void serve(int worker) noexcept {
    unsigned seen = 0;
    for (;;) {
      for (int spin = 0; generation_.load(std::memory_order_acquire) == seen && spin < spins; ++spin) relax(0);
      generation_.wait(seen, std::memory_order_acquire);
      seen = generation_.load(std::memory_order_acquire);
      if (stop_.load(std::memory_order_relaxed)) return;
      if (!enter()) continue;
      work(worker);
      gate_.fetch_sub(1, std::memory_order_release);
    }
  }
  /// Whether there still is something to help with. Then `run` does not return before this worker has left.
  [[nodiscard]] bool enter() noexcept {
    unsigned inside = gate_.load(std::memory_order_relaxed);
    while ((inside & open) != 0)
      if (gate_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel, std::memory_order_relaxed))
        return true;
    return false;
  }
  static void relax(int spin) noexcept {
    if (spin > spins) return std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  static constexpr int spins = 4000;
  static constexpr unsigned open = 1U << 31;

  /// The pool whose task this thread is running, and as which worker.
  struct place {
    thread_pool const* pool;
    int worker;
  };
  static inline thread_local place here_{};

  std::vector<std::thread> workers_;
  std::atomic<unsigned> generation_{};
  std::atomic<bool> stop_{};
  std::atomic<index_t> next_{};
  std::atomic<unsigned> gate_{};  ///< `open` while workers may enter, plus the number of those inside
  void* context_{};
  task call_{};
  index_t count_{};
  bool busy_{};
};

}  // namespace lowrank::detail
