#include "runner.h"

#include <cstring>
#include <string>

#include "../error.h"
#include "../host.h"
#include "../trace.h"

namespace ingot::cuda {
Tensors::~Tensors() {
  for (void* handle : handles_) host().tensor_delete(handle);
}

Results Runner::run(const std::vector<Array>& inputs) {
  const InUse use(gpu_);
  return with_memory([&] { return fetch(enqueue(inputs)); }, [] {});
}

Tensors Runner::enqueue(const std::vector<Array>& inputs) {
  HostTrace copying("inputs");
  staging_.lay_out(inputs);
  for (size_t i = 0; i < inputs.size(); i++)
    if (!inputs[i].on_gpu) std::memcpy(staging_.at(i), inputs[i].data, byte_count(inputs[i]));
  inputs_.grow(staging_.bytes(), "allocating a step's inputs on the GPU");
  copying.end();
  staging_.send(gpu_.device(), inputs_.data());
  time_calls();
  return enqueue_there(staging_.arrays_at(inputs_.data()));
}

Tensors Runner::enqueue_there(const std::vector<Array>& arrays) {
  return Tensors(graph_.enqueue(arrays, gpu_.device().stream()));
}

void Runner::time_calls() {
  if (tracing()) gpu_.calls().start(gpu_.device());
}

void Runner::finish() {
  gpu_.device().synchronize();
  gpu_.calls().tell();
}

// All of a tensor's span comes, and is put in order here.
Results Runner::fetch(const Tensors& made) {
  std::vector<Made> outputs;
  std::vector<std::vector<char>> copies;
  for (size_t i = 0; i < made.count(); i++) {
    outputs.push_back(made.at(i));
    Made& output = outputs.back();
    if (!output.array.on_gpu) continue;
    copies.emplace_back(output.span_bytes());
    gpu_.device().copy_to_host(copies.back().data(), output.array.data, copies.back().size());
    output.array.data = copies.back().data();
  }
  finish();
  const HostTrace reading("outputs");
  std::vector<Array> arrays;
  for (Made& output : outputs) {
    if (!output.array.on_gpu || row_major(output.array.shape) != output.strides) {
      copies.push_back(contiguous(output.array, output.strides));
      output.array.data = copies.back().data();
    }
    output.array.on_gpu = false;
    arrays.push_back(std::move(output.array));
  }
  return Results(std::move(arrays), std::move(copies));
}

bool Runner::ran_out() {
  const bool code_did = cuda_host_ran_out();
  return gpu_.pool().ran_out() || code_did;
}

Results Runner::with_memory(const std::function<Results()>& step,
                            const std::function<void()>& forget) {
  try {
    return step();
  } catch (const Error& error) {
    // What was enqueued has ended, and the GPU still works.
    if (driver().stream_synchronize(gpu_.device().stream()) != kSuccess) throw;
    // That an op of its own lacked memory says no more than its sentence: all is tried again.
    if (error.status == INGOT_BAD_INPUT) throw;
    ran_out();
  }
  forget();
  gpu_.pool().trim();
  gpu_.device().trim();
  inputs_ = {};
  try {
    return step();
  } catch (const Error& error) {
    driver().stream_synchronize(gpu_.device().stream());
    forget();
    const size_t held = gpu_.pool().bytes();
    gpu_.pool().trim();
    gpu_.device().trim();
    if (!ran_out() && error.status != INGOT_NO_SPACE) throw;
    throw Error(INGOT_NO_SPACE,
                "the GPU's memory is full: a step needs more than the " +
                    std::to_string(held >> 20) +
                    " MB it got; open the package with a smaller kv_tokens, or end what else uses "
                    "the GPU");
  }
}
}  // namespace ingot::cuda
