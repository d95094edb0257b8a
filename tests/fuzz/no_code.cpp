// In place of what loads and runs native code: a graph that reads all it is given and loads
// nothing.
#include <cstring>

#include "error.h"
#include "graph.h"
#include "host.h"
#include "input.h"
#include "measure.h"
#include "team.h"

namespace ingot {
namespace {
Error no_gpu() { return {INGOT_FAILED, "there is no GPU"}; }
}  // namespace

Graph::Graph(const Code& code, const std::vector<Code>& libraries, const Weights& weights,
             const Manifest&, const std::string&) {
  fuzz::read_all(code.bytes);
  for (const Code& library : libraries) fuzz::read_all(library.bytes);
  fuzz::read_all({weights.data, weights.bytes});
}
Graph::~Graph() = default;
Results Graph::run(const std::vector<Array>&) { throw Error(INGOT_FAILED, "there is no code"); }
std::vector<void*> Graph::enqueue(const std::vector<Array>&, void*) { throw no_gpu(); }
Results::Results(std::vector<void*>) {}
Results::~Results() = default;

const ingot_host_api& host() { throw Error(INGOT_FAILED, "there is no host"); }
const char* op_schema(const char* name) {
  return std::strcmp(name, "linear") == 0 ? "linear(Tensor x) -> Tensor" : nullptr;
}
int isa_level() { return 4; }
double measure_read(const void*, size_t, int) { return 0; }
void end_own_team() {}
void Team::assemble() {}
void Team::end() {}

int open_cuda_host() { throw no_gpu(); }
bool cuda_host_ran_out() { throw no_gpu(); }
Made describe(void*) { throw no_gpu(); }
size_t Made::span_bytes() const { throw no_gpu(); }
std::vector<char> contiguous(const Array&, const std::vector<int64_t>&) { throw no_gpu(); }
std::vector<int64_t> row_major(const std::vector<int64_t>&) { throw no_gpu(); }
}  // namespace ingot
