// Captures and the graphs they make.
#include "state.h"

using namespace fake_cuda;

API Status cuStreamBeginCapture_v2(Stream* stream, int32_t) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    if (stream->captured) return kInvalidValue;
    stream->captured = new std::vector<Work>;
    stream->invalidated = fails(gpu().settings.failing_capture);
    stream->capturer = std::this_thread::get_id();
    capturing = stream;
    gpu().counts.captures++;
    return kSuccess;
  });
}
API Status cuStreamEndCapture(Stream* stream, Graph** graph) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    if (!stream->captured) return kInvalidValue;
    if (stream->capturer != std::this_thread::get_id()) return kCaptureWrongThread;
    const std::unique_ptr<std::vector<Work>> work(stream->captured);
    stream->captured = nullptr;
    capturing = nullptr;
    *graph = nullptr;
    if (stream->invalidated) return kCaptureInvalidated;
    *graph = new Graph{std::move(*work)};
    gpu().counts.graphs++;
    return kSuccess;
  });
}
API Status cuGraphInstantiateWithFlags(Graph** exec, Graph* graph, uint64_t) {
  return call(Needs::context, [&] {
    *exec = new Graph(*graph);
    gpu().counts.graphs++;
    return kSuccess;
  });
}
API Status cuGraphLaunch(Graph* exec, Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    for (const Work& work : exec->work) enqueue(*stream, work);
    gpu().counts.graph_launches++;
    return kSuccess;
  });
}
API Status cuGraphDestroy(Graph* graph) {
  return call(Needs::context, [&] {
    delete graph;
    gpu().counts.graphs--;
    return kSuccess;
  });
}
API Status cuGraphExecDestroy(Graph* exec) { return cuGraphDestroy(exec); }
