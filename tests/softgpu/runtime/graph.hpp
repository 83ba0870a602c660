// Graph capture: operations of capturing streams become nodes with their dependencies.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "runtime/stream.hpp"

namespace softgpu {

struct graph_node {
  operation item;
  std::set<std::size_t> after;  // indices of earlier nodes
};

/// A capture in progress; shared by the streams that have joined it.
struct capture {
  std::vector<graph_node> nodes;
  cudaStream_t origin = nullptr;
  std::set<cudaStream_t> streams;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread = std::this_thread::get_id();
  bool invalid = false, ended = false;  // events remember a capture beyond its end
};

/// The state of capture that belongs to a stream: what its next node depends on.
struct stream_capture {
  std::shared_ptr<capture> into;
  std::set<std::size_t> tail;
};

/// The stream's capture, or null. Never null while cudaStreamIsCapturing says so.
stream_capture* capture_of(cudaStream_t stream);
inline bool capturing(cudaStream_t stream) { return capture_of(stream) != nullptr; }
/// Where the capture of a stream is kept; null for a stream that cannot be captured.
stream_capture* capture_slot(cudaStream_t stream);
/// Records a node on a capturing stream.
cudaError_t record_node(stream_capture& of, operation item);

/// Status of a call that relaxed captures alone allow (cudaMalloc, questions to other streams ...); ends the captures.
cudaError_t forbidden_in_capture();
/// Status of a call that may not happen during any capture; ends them all.
cudaError_t forbidden_in_any_capture();
/// Status of a call that may not be made on this stream while it captures; ends its capture.
cudaError_t forbidden_on(cudaStream_t stream);
/// A call has failed that would have become a node: the capture is lost. Gives the status back.
cudaError_t failed_on(cudaStream_t stream, cudaError_t status);
/// Status of work in a queue that captured streams would have to be ordered with.
cudaError_t implicit_dependency(work_queue const& queue);
/// cudaStreamWaitEvent where the stream or the event belongs to a capture.
cudaError_t join_capture(cudaStream_t stream, stream_capture const& event, queue_position const& recorded);
/// Status of asking a captured event for its state.
cudaError_t captured_event_misused(stream_capture const& event);

}  // namespace softgpu
