// Streams: work is queued, and runs when something waits for it (lazy), or at once (eager). A queue is what a stream
// is made of; it outlives its stream until its work is done.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace softgpu {

class work_queue;

/// A place in a queue: reached when so many operations of it are done.
struct queue_position {
  std::shared_ptr<work_queue> queue;
  std::uint64_t ticket = 0;

  bool reached() const;
};

/// `housekeeping` (events, frees) may be left over at exit; `work` that nobody waits for is a mistake.
enum class operation_kind { work, housekeeping };

struct operation {
  std::function<void()> run;
  operation_kind kind = operation_kind::work;
  std::vector<queue_position> after{};
};

/// How a queue meets the legacy default stream: it is the one, orders itself with it, or ignores it.
enum class queue_order { legacy, blocking, independent };

class work_queue {
 public:
  /// Of no device in particular where none is given.
  explicit work_queue(queue_order order, std::optional<int> device = {}) : order_{order}, device_{device} {}

  queue_order order() const { return order_; }
  std::optional<int> device() const { return device_; }
  std::uint64_t pushed() const { return pushed_; }
  std::uint64_t done() const { return done_; }
  bool idle() const { return done_ == pushed_; }
  std::deque<operation> const& waiting() const { return waiting_; }

  void push(operation item);
  operation const& front() const { return waiting_.front(); }
  operation take();
  void finish() { ++done_; }

 private:
  queue_order order_;
  std::optional<int> device_;
  std::deque<operation> waiting_;
  std::uint64_t pushed_ = 0, done_ = 0;
};

/// The queue behind a handle; the handles 0, cudaStreamLegacy and cudaStreamPerThread have one as well. Null when the
/// handle is no stream.
std::shared_ptr<work_queue> queue_of(cudaStream_t stream);

/// Appends to a stream: recorded when the stream is being captured, queued otherwise, run at once in eager mode.
cudaError_t submit(cudaStream_t stream, operation item);

void run_until(queue_position const& position);
void run_all();
void run_one(work_queue& queue);
/// Everything that the stream's work so far consists of.
queue_position tail_of(cudaStream_t stream);
/// Waits as the host does: runs what is needed and returns the device's state.
cudaError_t wait_for(cudaStream_t stream);

/// Operations that nobody has waited for.
std::size_t unfinished_work();
/// Forgets all queues: the device is reset.
void drop_all_work();
/// How often the host has waited for the device.
long host_waits();
void count_host_wait();

}  // namespace softgpu
