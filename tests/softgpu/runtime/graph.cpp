#include "runtime/graph.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "runtime/census.hpp"
#include "runtime/device.hpp"

struct CUgraph_st {
  std::vector<softgpu::graph_node> nodes;
};
struct CUgraphExec_st {
  std::vector<softgpu::operation> steps;
};

namespace softgpu {
namespace {

std::vector<std::weak_ptr<capture>>& captures() {
  static auto* const instance = new std::vector<std::weak_ptr<capture>>;
  return *instance;
}

// The order of the graph's edges only, and otherwise the reverse of what was written: a dependency that somebody
// forgot to record shows. In eager mode the order in which the nodes were recorded.
std::vector<operation> in_order_of_execution(std::vector<graph_node> const& nodes) {
  std::vector<operation> steps;
  std::vector<bool> done(nodes.size());
  bool const eager = settings().streams == stream_mode::eager;
  while (steps.size() < nodes.size()) {
    std::size_t chosen = nodes.size();
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      bool const ready = std::ranges::all_of(nodes[n].after, [&](std::size_t other) { return done[other]; });
      if (done[n] || !ready) continue;
      chosen = n;
      if (eager) break;
    }
    done[chosen] = true;
    steps.push_back(nodes[chosen].item);
  }
  return steps;
}

template <class Concerned>
cudaError_t end_captures(Concerned const& concerned) {
  bool found = false;
  for (auto const& candidate : captures())
    if (auto const active = candidate.lock(); active && !active->ended && concerned(*active))
      found = active->invalid = true;
  return found ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

void leave(capture& finished) {
  finished.ended = true;
  for (cudaStream_t const stream : finished.streams)
    if (auto* const slot = capture_slot(stream); slot != nullptr && slot->into.get() == &finished) *slot = {};
}

}  // namespace

cudaError_t record_node(stream_capture& of, operation item) {
  capture& into = *of.into;
  if (into.invalid) return cudaErrorStreamCaptureInvalidated;
  into.nodes.push_back({std::move(item), of.tail});
  of.tail = {into.nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t forbidden_in_capture() {
  return end_captures([](capture const& active) {
    bool const own = active.thread == std::this_thread::get_id();
    return active.mode == cudaStreamCaptureModeGlobal || (active.mode == cudaStreamCaptureModeThreadLocal && own);
  });
}
cudaError_t forbidden_in_any_capture() {
  return end_captures([](capture const&) { return true; });
}

cudaError_t forbidden_on(cudaStream_t stream) {
  if (auto* const captured = capture_of(stream)) {
    captured->into->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  auto const queue = queue_of(stream);
  return queue ? implicit_dependency(*queue) : cudaErrorInvalidResourceHandle;
}

cudaError_t failed_on(cudaStream_t stream, cudaError_t status) {
  auto* const captured = capture_of(stream);
  if (status != cudaSuccess && captured != nullptr) captured->into->invalid = true;
  return status;
}

cudaError_t implicit_dependency(work_queue const& queue) {
  if (queue.order() != queue_order::legacy) return cudaSuccess;
  bool found = false;
  for (auto const& candidate : captures())
    if (auto const active = candidate.lock(); active && !active->ended)
      for (cudaStream_t const stream : active->streams)
        if (auto const captured = queue_of(stream); captured && captured->order() == queue_order::blocking)
          found = active->invalid = true;
  return found ? cudaErrorStreamCaptureImplicit : cudaSuccess;
}

cudaError_t join_capture(cudaStream_t stream, stream_capture const& event, queue_position const& recorded) {
  auto* const slot = capture_slot(stream);
  if (slot == nullptr) return cudaErrorStreamCaptureImplicit;
  if (!event.into) {  // a capturing stream may not wait for the world outside
    if (!recorded.queue) return cudaSuccess;
    slot->into->invalid = true;
    return cudaErrorStreamCaptureIsolation;
  }
  if (slot->into && slot->into != event.into) {
    slot->into->invalid = event.into->invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  if (event.into->invalid) return cudaErrorStreamCaptureInvalidated;
  slot->into = event.into;
  slot->into->streams.insert(stream);
  slot->tail.insert(event.tail.begin(), event.tail.end());
  return cudaSuccess;
}

cudaError_t captured_event_misused(stream_capture const& event) {
  event.into->invalid = true;
  return cudaErrorCapturedEvent;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return entry_point("cudaStreamBeginCapture", [&] {
    auto* const slot = capture_slot(stream);
    if (slot == nullptr) return cudaErrorStreamCaptureUnsupported;  // the default stream cannot be captured
    if (slot->into) return cudaErrorIllegalState;
    *slot = {std::make_shared<capture>(), {}};
    slot->into->origin = stream;
    slot->into->streams = {stream};
    slot->into->mode = mode;
    std::erase_if(captures(), [](auto const& other) { return other.expired(); });
    captures().push_back(slot->into);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return entry_point("cudaStreamEndCapture", [&] {
    *graph = nullptr;
    auto* const slot = capture_slot(stream);
    if (slot == nullptr || !slot->into) return cudaErrorIllegalState;
    auto const finished = slot->into;
    if (finished->origin != stream) {
      finished->invalid = true;
      return cudaErrorStreamCaptureUnmatched;
    }
    if (finished->mode != cudaStreamCaptureModeRelaxed && finished->thread != std::this_thread::get_id())
      return cudaErrorStreamCaptureWrongThread;
    // Every branch must have come back to the origin: all nodes that nothing follows are in its tail.
    std::set<std::size_t> ends;
    for (std::size_t n = 0; n < finished->nodes.size(); ++n) ends.insert(n);
    for (auto const& node : finished->nodes)
      for (std::size_t const other : node.after) ends.erase(other);
    bool const joined = std::ranges::includes(slot->tail, ends);
    leave(*finished);
    if (finished->invalid) return cudaErrorStreamCaptureInvalidated;
    if (!joined) return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{finished->nodes};
    count_made(live_kind::graph);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return entry_point("cudaStreamIsCapturing", [&] {
    auto const queue = queue_of(stream);
    if (!queue) return cudaErrorInvalidResourceHandle;
    if (auto const forbidden = implicit_dependency(*queue)) return forbidden;
    auto const* const captured = capture_of(stream);
    *status = captured == nullptr       ? cudaStreamCaptureStatusNone
              : captured->into->invalid ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return entry_point("cudaGraphInstantiate", [&] {
    if (executable == nullptr || graph == nullptr) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{in_order_of_execution(graph->nodes)};
    count_made(live_kind::executable_graph);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return entry_point("cudaGraphLaunch", [&] {
    if (executable == nullptr) return cudaErrorInvalidValue;
    for (auto const& step : executable->steps)
      if (auto const status = submit(stream, step)) return status;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t) {
  return entry_point("cudaGraphUpload", [&] { return executable != nullptr ? cudaSuccess : cudaErrorInvalidValue; });
}

// Nodes are told apart by their place; there is nothing to ask them.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return entry_point("cudaGraphGetNodes", [&] {
    if (graph == nullptr || count == nullptr) return cudaErrorInvalidValue;
    if (nodes != nullptr) {
      *count = std::min(*count, graph->nodes.size());
      for (std::size_t n = 0; n < *count; ++n) nodes[n] = reinterpret_cast<cudaGraphNode_t>(&graph->nodes[n]);
    } else {
      *count = graph->nodes.size();
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return entry_point("cudaGraphDestroy", [&] {
    if (graph == nullptr) return cudaErrorInvalidValue;
    delete graph;
    count_gone(live_kind::graph);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return entry_point("cudaGraphExecDestroy", [&] {
    if (executable == nullptr) return cudaErrorInvalidValue;
    delete executable;
    count_gone(live_kind::executable_graph);
    return cudaSuccess;
  });
}
}
