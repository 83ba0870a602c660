// Events: marks in a stream that other streams and the host wait for.
#include <chrono>
#include <memory>
#include <set>

#include "runtime/census.hpp"
#include "runtime/device.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

using clock_type = std::chrono::steady_clock;

struct CUevent_st {
  unsigned flags = 0;
  softgpu::queue_position position{};  // of the last record; nothing recorded counts as reached
  std::shared_ptr<clock_type::time_point> time;
  softgpu::stream_capture captured{};  // the last record was a node of this capture
};

using namespace softgpu;

namespace {

std::set<cudaEvent_t>& events() {
  static auto* const instance = new std::set<cudaEvent_t>;
  return *instance;
}
bool known(cudaEvent_t event) { return events().contains(event); }
bool recorded_in_capture(cudaEvent_t event) { return event->captured.into != nullptr; }

}  // namespace

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return entry_point("cudaEventCreate", [&] {
    if (event == nullptr) return cudaErrorInvalidValue;
    *event = new CUevent_st{.flags = flags, .position = {}, .time = {}, .captured = {}};
    events().insert(*event);
    count_made(live_kind::event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return entry_point("cudaEventDestroy", [&] {
    if (events().erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    count_gone(live_kind::event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return entry_point("cudaEventRecord", [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (auto* const captured = capture_of(stream)) {
      event->captured = *captured;
      return captured->into->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    }
    event->captured = {};
    event->time = std::make_shared<clock_type::time_point>();
    auto const status =
        submit(stream, {[time = event->time] { *time = clock_type::now(); }, operation_kind::housekeeping});
    event->position = tail_of(stream);
    return status;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return entry_point("cudaStreamWaitEvent", [&] {
    if (!known(event) || !queue_of(stream)) return cudaErrorInvalidResourceHandle;
    if (capture_of(stream) != nullptr || recorded_in_capture(event))
      return join_capture(stream, event->captured, event->position);
    if (event->position.reached()) return cudaSuccess;
    return submit(stream, {{}, operation_kind::housekeeping, {event->position}});
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return entry_point("cudaEventSynchronize", [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (recorded_in_capture(event)) return captured_event_misused(event->captured);
    if (auto const status = forbidden_in_capture()) return status;
    count_host_wait();
    run_until(event->position);
    return sticky_error();
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return entry_point("cudaEventQuery", [&] {
    if (!known(event)) return cudaErrorInvalidResourceHandle;
    if (recorded_in_capture(event)) return captured_event_misused(event->captured);
    if (auto const status = forbidden_in_capture()) return status;
    if (!event->position.reached()) run_one(*event->position.queue);
    return event->position.reached() ? sticky_error() : cudaErrorNotReady;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return entry_point("cudaEventElapsedTime", [&] {
    for (cudaEvent_t const event : {start, end})
      if (!known(event) || (event->flags & cudaEventDisableTiming) != 0 || !event->time)
        return cudaErrorInvalidResourceHandle;
    if (!start->position.reached() || !end->position.reached()) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return cudaSuccess;
  });
}
}
