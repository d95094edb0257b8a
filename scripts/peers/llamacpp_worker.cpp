// llama.cpp through its C interface, with its defaults; the same answers as protocol.py's.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "gguf.h"
#include "llama.h"

namespace {
struct Request {
  size_t count;
  std::vector<llama_token> prompt;
};

Request parse(const char* text) {  // COUNT:ID,ID,...
  Request request{};
  char separator;
  std::istringstream in(text);
  in >> request.count;
  for (llama_token id; in >> separator >> id;) request.prompt.push_back(id);
  return request;
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "llama.cpp cannot %s\n", what);
  std::exit(1);
}

std::string about(const char* path) {
  gguf_context* file = gguf_init_from_file(path, {/*no_alloc=*/true, /*ctx=*/nullptr});
  if (file == nullptr) fail("read the file");
  const int64_t head = gguf_find_tensor(file, "output.weight");
  if (head < 0) fail("find output.weight");
  return std::string("{\"version\": \"" LLAMACPP_COMMIT "\", \"head\": \"") +
         ggml_type_name(gguf_get_tensor_type(file, head)) + "\"}";
}

llama_context* load(const char* path, int threads, const std::vector<Request>& requests) {
  llama_model* model = llama_model_load_from_file(path, llama_model_default_params());
  if (model == nullptr) fail("load the model");
  llama_context_params params = llama_context_default_params();
  params.n_threads = params.n_threads_batch = threads;
  params.n_ctx = 0;
  for (const Request& request : requests) {
    params.n_ctx = std::max<uint32_t>(params.n_ctx, request.prompt.size() + request.count);
    params.n_batch = std::max<uint32_t>(params.n_batch, request.prompt.size());
  }
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) fail("make a context");
  return context;
}

std::string generate(llama_context* context, Request request) {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  const auto since = [&] { return std::chrono::duration<double>(clock::now() - start).count(); };
  const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
  std::string tokens;
  double first_s = 0;
  llama_memory_clear(llama_get_memory(context), /*data=*/false);
  std::vector<llama_token> next = request.prompt;
  for (size_t i = 0; i < request.count; i++) {
    if (llama_decode(context, llama_batch_get_one(next.data(), static_cast<int32_t>(next.size()))))
      fail("decode");
    const float* logits = llama_get_logits_ith(context, -1);
    next = {static_cast<llama_token>(std::max_element(logits, logits + vocab) - logits)};
    if (i == 0) first_s = since();
    tokens += (i ? ", " : "") + std::to_string(next[0]);
  }
  return "{\"tokens\": [" + tokens + "], \"first_s\": " + std::to_string(first_s) +
         ", \"last_s\": " + std::to_string(since()) + "}";
}

void log_errors(ggml_log_level level, const char* text, void*) {
  if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) fail("run without MODEL and THREADS");
  llama_log_set(log_errors, nullptr);
  std::string answer;
  if (argc == 3) {
    answer = about(argv[1]);
  } else {
    std::vector<Request> requests;
    for (int i = 3; i < argc; i++) requests.push_back(parse(argv[i]));
    llama_backend_init();
    llama_context* context = load(argv[1], std::atoi(argv[2]), requests);
    for (const Request& request : requests)
      answer += (answer.empty() ? "" : ", ") + generate(context, request);
    answer = "{\"runs\": [" + answer + "]}";
  }
  std::puts(answer.c_str());
  std::fflush(stdout);
  std::_Exit(0);  // as the other workers: taking it down is not measured
}
