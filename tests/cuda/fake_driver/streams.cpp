// Streams and events.
#include "state.h"

using namespace fake_cuda;

API Status cuStreamCreate(Stream** stream, uint32_t) {
  return call(Needs::context, [&] {
    gpu().streams.insert(*stream = new Stream);
    gpu().counts.streams++;
    return kSuccess;
  });
}
API Status cuStreamDestroy_v2(Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    run(*stream);
    gpu().streams.erase(stream);
    delete stream;
    gpu().counts.streams--;
    return kSuccess;
  });
}
API Status cuStreamSynchronize(Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    if (spoils_capture() || stream->captured) return kCaptureUnsupported;
    return run(*stream);
  });
}

API Status cuEventCreate(Event** event, uint32_t) {
  return call(Needs::context, [&] {
    *event = new Event;
    gpu().counts.events++;
    return kSuccess;
  });
}
API Status cuEventDestroy_v2(Event* event) {
  return call(Needs::context, [&] {
    run_all();
    delete event;
    gpu().counts.events--;
    return kSuccess;
  });
}
API Status cuEventRecord(Event* event, Stream* stream) {
  return call(Needs::context, [&]() -> Status {
    if (!is_stream(stream)) return kInvalidHandle;
    event->stream = stream;
    event->done = false;
    event->captured = stream->captured != nullptr;
    enqueue(*stream, [=] {
      event->done = true;
      event->time = std::chrono::steady_clock::now();
      return kSuccess;
    });
    return kSuccess;
  });
}
API Status cuEventSynchronize(Event* event) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (event->captured) return kCapturedEvent;
    return event->done ? gpu().sticky : run(*event->stream);
  });
}
API Status cuEventQuery(Event* event) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (event->captured) return kCapturedEvent;
    return event->done ? kSuccess : run(*event->stream);
  });
}
API Status cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
  return call(Needs::context, [&]() -> Status {
    if (from->captured || to->captured) return kCapturedEvent;
    if (!from->done || !to->done) return kNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return kSuccess;
  });
}
