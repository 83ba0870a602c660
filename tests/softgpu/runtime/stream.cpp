#include "runtime/stream.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/census.hpp"
#include "runtime/device.hpp"
#include "runtime/graph.hpp"

// The vendor's headers leave the types behind handles incomplete.
struct CUstream_st {
  std::shared_ptr<softgpu::work_queue> queue;
  softgpu::stream_capture capture{};
  int priority = 0;
  unsigned flags = 0;
};

namespace softgpu {
namespace {

struct stream_registry {
  std::map<cudaStream_t, std::unique_ptr<CUstream_st>> streams;
  std::vector<std::shared_ptr<work_queue>> queues;  // also those whose stream is gone but whose work is not
  std::shared_ptr<work_queue> legacy = std::make_shared<work_queue>(queue_order::legacy);
  long waits = 0;
};
stream_registry& registry() {
  static auto* const instance = new stream_registry;  // used from exit handlers: never destroyed
  return *instance;
}

std::shared_ptr<work_queue> const& per_thread_queue() {
  thread_local std::shared_ptr<work_queue> const queue = [] {
    auto made = std::make_shared<work_queue>(queue_order::blocking);
    registry().queues.push_back(made);
    return made;
  }();
  return queue;
}

std::vector<std::shared_ptr<work_queue>> all_queues() {
  auto& r = registry();
  std::erase_if(r.queues, [](auto const& queue) { return queue.use_count() == 1 && queue->idle(); });
  auto all = r.queues;
  all.push_back(r.legacy);
  return all;
}

// The legacy stream waits for what blocking streams have so far, and they for what it has.
void order_with_legacy(work_queue const& queue, operation& item) {
  auto const follow = [&](std::shared_ptr<work_queue> const& other) {
    if (!other->idle()) item.after.push_back({other, other->pushed()});
  };
  if (queue.order() == queue_order::blocking) follow(registry().legacy);
  if (queue.order() != queue_order::legacy) return;
  for (auto const& other : all_queues())
    if (other->order() == queue_order::blocking) follow(other);
}

}  // namespace

bool queue_position::reached() const { return !queue || queue->done() >= ticket; }

void work_queue::push(operation item) {
  waiting_.push_back(std::move(item));
  ++pushed_;
}

operation work_queue::take() {
  operation item = std::move(waiting_.front());
  waiting_.pop_front();
  return item;
}

std::shared_ptr<work_queue> queue_of(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return registry().legacy;
  if (stream == cudaStreamPerThread) return per_thread_queue();
  auto const found = registry().streams.find(stream);
  return found == registry().streams.end() ? nullptr : found->second->queue;
}

stream_capture* capture_of(cudaStream_t stream) {
  auto const found = registry().streams.find(stream);
  return found != registry().streams.end() && found->second->capture.into ? &found->second->capture : nullptr;
}

stream_capture* capture_slot(cudaStream_t stream) {
  auto const found = registry().streams.find(stream);
  return found == registry().streams.end() ? nullptr : &found->second->capture;
}

cudaError_t submit(cudaStream_t stream, operation item) {
  if (auto* const captured = capture_of(stream)) return record_node(*captured, std::move(item));
  auto const queue = queue_of(stream);
  if (!queue) return cudaErrorInvalidResourceHandle;
  if (auto const status = implicit_dependency(*queue)) return status;
  order_with_legacy(*queue, item);
  queue->push(std::move(item));
  if (settings().streams == stream_mode::eager) run_until({queue, queue->pushed()});
  return cudaSuccess;
}

void run_one(work_queue& queue) {
  if (queue.idle()) return;
  for (auto const& position : queue.front().after) run_until(position);
  operation const item = queue.take();
  // A broken device does nothing any more, except for giving memory back.
  if (item.run && (sticky_error() == cudaSuccess || item.kind == operation_kind::housekeeping)) item.run();
  queue.finish();
}

// Waits refer to what was queued earlier, so they never form a cycle; they may form long chains, hence no recursion.
void run_until(queue_position const& position) {
  std::vector<queue_position> wanted{position};
  while (!wanted.empty()) {
    queue_position const next = wanted.back();
    if (next.reached()) {
      wanted.pop_back();
      continue;
    }
    auto const& after = next.queue->front().after;
    auto const missing = std::find_if(after.begin(), after.end(), [](auto const& other) { return !other.reached(); });
    if (missing != after.end()) wanted.push_back(*missing);
    else run_one(*next.queue);
  }
}

void run_all() {
  for (auto const& queue : all_queues()) run_until({queue, queue->pushed()});
}

queue_position tail_of(cudaStream_t stream) {
  auto const queue = queue_of(stream);
  return {queue, queue ? queue->pushed() : 0};
}

cudaError_t wait_for(cudaStream_t stream) {
  auto const queue = queue_of(stream);
  if (!queue) return cudaErrorInvalidResourceHandle;
  count_host_wait();
  if (queue->order() == queue_order::legacy)
    for (auto const& other : all_queues())
      if (other->order() == queue_order::blocking) run_until({other, other->pushed()});
  run_until({queue, queue->pushed()});
  return sticky_error();
}

std::size_t unfinished_work() {
  std::size_t count = 0;
  for (auto const& queue : all_queues())
    for (auto const& item : queue->waiting()) count += item.kind == operation_kind::work ? 1 : 0;
  return count;
}

void drop_all_work() {
  auto& r = registry();
  r.streams.clear();
  r.queues.clear();
  r.legacy = std::make_shared<work_queue>(queue_order::legacy);
}

long host_waits() { return registry().waits; }
void count_host_wait() { ++registry().waits; }

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return entry_point("cudaStreamCreate", [&] {
    if (stream == nullptr || (flags & ~unsigned{cudaStreamNonBlocking}) != 0) return cudaErrorInvalidValue;
    auto made = std::make_unique<CUstream_st>();
    bool const independent = (flags & cudaStreamNonBlocking) != 0;
    made->queue =
        std::make_shared<work_queue>(independent ? queue_order::independent : queue_order::blocking, current_device());
    made->priority = priority;
    made->flags = flags;
    registry().queues.push_back(made->queue);
    *stream = made.get();
    registry().streams.emplace(*stream, std::move(made));
    count_made(live_kind::stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

// The stream's work goes on; only the handle dies.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return entry_point("cudaStreamDestroy", [&] {
    if (auto* const captured = capture_of(stream)) captured->into->invalid = true;
    if (registry().streams.erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    count_gone(live_kind::stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return entry_point("cudaStreamSynchronize", [&] {
    if (auto const status = forbidden_on(stream)) return status;
    if (auto const status = forbidden_in_capture()) return status;
    return wait_for(stream);
  });
}

// Each question lets one operation run, so that a program that polls gets on.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return entry_point("cudaStreamQuery", [&] {
    if (auto const status = forbidden_on(stream)) return status;
    if (auto const status = forbidden_in_capture()) return status;
    auto const queue = queue_of(stream);
    if (!queue) return cudaErrorInvalidResourceHandle;
    run_one(*queue);
    return queue->idle() ? sticky_error() : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return entry_point("cudaStreamGetFlags", [&] {
    auto const found = registry().streams.find(stream);
    *flags = found == registry().streams.end() ? unsigned{cudaStreamDefault} : found->second->flags;
    return queue_of(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return entry_point("cudaStreamGetPriority", [&] {
    auto const found = registry().streams.find(stream);
    *priority = found == registry().streams.end() ? 0 : found->second->priority;
    return queue_of(stream) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return entry_point("cudaStreamGetDevice", [&] {
    if (auto const status = forbidden_on(stream)) return status;
    auto const queue = queue_of(stream);
    if (!queue) return cudaErrorInvalidResourceHandle;
    *device = queue->device().value_or(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return entry_point("cudaLaunchHostFunc", [&] { return submit(stream, {[=] { function(data); }}); });
}
}
