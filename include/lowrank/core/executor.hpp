/// @file
/// How to run, as one argument: threads or stream, and scratch memory.
#pragma once

#include <concepts>
#include <optional>
#include <thread>
#include <type_traits>

#include "lowrank/core/detail/thread_pool.hpp"
#include "lowrank/core/scratch.hpp"

namespace lowrank {

struct host_options {
  int threads{0};                 ///< 0: as many as the machine has
  index_t scratch_bytes{0};       ///< reserved at once; `reserve` can raise it later
  index_t worker_bytes{4 << 20};  ///< private to each thread: where products pack their operands
};

/// Those who run the body of `team` together: here one thread. Everybody calls the same members in the same order.
struct host_team {
  /// f(i) for i in [0, count), shared out; done when it returns.
  template <class F>
  void each(index_t count, F const& f) const {
    for (index_t i = 0; i < count; ++i) f(i);
  }
  /// Sum of f(i), known to everybody. The order of summation is the team's own.
  template <class F>
  [[nodiscard]] double sum(index_t count, F const& f) const {
    double total = 0;
    for (index_t i = 0; i < count; ++i) total += f(i);
    return total;
  }
  /// The largest of `least` and f(i), known to everybody.
  template <class F>
  [[nodiscard]] double most(index_t count, double least, F const& f) const {
    for (index_t i = 0; i < count; ++i) {
      double const value = f(i);
      if (value > least) least = value;
    }
    return least;
  }
};

/// Runs on this machine's cores, with the pool and the scratch it owns. One thread uses an executor at a time; several
/// executors may run at once. Constructing one starts threads and allocates; running allocates nothing.
class host_executor {
 public:
  using space = host_space;

  explicit host_executor(host_options options = {})
      : pool_{checked_threads(options.threads)},
        worker_bytes_{scratch_size(options.worker_bytes)},
        worker_memory_{pool_.threads() * worker_bytes_} {
    arena_.reserve(options.scratch_bytes);
  }

  [[nodiscard]] int threads() const noexcept { return pool_.threads(); }
  [[nodiscard]] scratch<host_space>& arena() noexcept { return arena_; }
  [[nodiscard]] scratch<host_space> const& arena() const noexcept { return arena_; }
  /// Makes at least `bytes` of scratch available. Call it outside of `step`.
  void reserve(index_t bytes) { arena_.reserve(bytes); }
  /// Everything this executor holds.
  [[nodiscard]] index_t bytes() const noexcept { return arena_.reserved() + worker_memory_.bytes(); }

  /// body(task) or body(task, worker) for every task in [0, count), in any order, on any thread; returns when all are
  /// done. The results must not depend on who runs what: split work by shape, never by the number of threads.
  template <class Body>
  void parallel(index_t count, Body const& body) {
    pool_.run(count, const_cast<void*>(static_cast<void const*>(&body)), [](void* context, index_t task, int worker) {
      auto const& call = *static_cast<Body const*>(context);
      if constexpr (std::invocable<Body const&, index_t, int>) call(task, worker);
      else call(task);
    });
  }
  /// Runs `body()` once, where memory of this space can be touched: a one-thread kernel on a device.
  template <class Body>
  void single(Body const& body) {
    body();
  }
  /// Runs `body(team)` once, for small work with loops that a device shares out among the threads of a block.
  template <class Body>
  void team(Body const& body) {
    body(host_team{});
  }
  /// The value behind `p` if this executor knows it without waiting: always on the host, never on a device.
  template <class T>
  [[nodiscard]] std::optional<T> peek(T const* p) const {
    return *p;
  }
  /// Memory private to worker `worker` of a `parallel` body.
  [[nodiscard]] std::byte* worker_memory(int worker) noexcept { return worker_memory_.data() + worker * worker_bytes_; }
  [[nodiscard]] index_t worker_bytes() const noexcept { return worker_bytes_; }

 private:
  static int checked_threads(int asked) {
    require(asked >= 0 && asked <= 4096, "host_executor", "threads must be in [0, 4096], got ", asked);
    int const machine = static_cast<int>(std::thread::hardware_concurrency());
    return asked > 0 ? asked : machine > 0 ? machine : 1;
  }

  detail::thread_pool pool_;
  index_t worker_bytes_;
  buffer<std::byte, host_space> worker_memory_;
  scratch<host_space> arena_;
};

/// What algorithms ask of an executor; a CUDA executor satisfies it with a stream and kernels. Products, reductions and
/// factorizations are not members: they are overloads found by lookup (linalg/primitives.hpp).
template <class E>
concept executor = requires(E& exec, float const* p) {
  requires memory_space<typename E::space>;
  { exec.arena() } -> std::same_as<scratch<typename E::space>&>;
  exec.reserve(index_t{});
  { exec.peek(p) } -> std::same_as<std::optional<float>>;
};
static_assert(executor<host_executor>);

/// While it lives, `peek` tells every value, if need be by waiting for it: what looks for a basis decides by what it meets.
/// Without it, a device never waits. On the host it has no effect.
template <class E>
class look_scope {
 public:
  explicit look_scope(E& exec) noexcept : exec_{exec} {
    if constexpr (waits) ++exec_.looks_;
  }
  look_scope(look_scope const&) = delete;
  look_scope& operator=(look_scope const&) = delete;
  ~look_scope() {
    if constexpr (waits) --exec_.looks_;
  }

 private:
  static constexpr bool waits = std::same_as<typename E::space, device_space>;
  E& exec_;
};

/// Views in the space of an executor.
template <class E>
using view_of = matrix_view<float, typename E::space>;
template <class E>
using const_view_of = matrix_view<float const, typename E::space>;

}  // namespace lowrank
