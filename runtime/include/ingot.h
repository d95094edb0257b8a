/* Ingot's C interface: open a package, make sessions, generate. Needs neither torch nor a compiler.
 *
 * Every function that can fail returns an `ingot_status`; the sentence that says what, where and
 * what to do is `ingot_last_error()`, per thread, valid until the next call on it. Strings are
 * UTF-8. Sizes are in elements unless a name says bytes. Handles may be used from any thread. A
 * session serves one call at a time and refuses a second (INGOT_BAD_INPUT). A package serves any
 * number: steps of its sessions are one step where they meet, calls of ingot_run and ingot_embed
 * wait for each other. Packages of a process that are opened with the same `threads` take turns,
 * step by step, where the cores are too few for a team each.
 */
#ifndef INGOT_H
#define INGOT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define INGOT_API __attribute__((visibility("default")))
#else
#define INGOT_API
#endif

typedef enum ingot_status {
  INGOT_OK = 0,
  INGOT_BAD_INPUT =
      1, /* the caller's argument: token out of range, prompt too long, no such file */
  INGOT_BAD_PACKAGE = 2, /* damaged, too new, for another ISA level or GPU or for a driver that is
                            not there, or needs an op this library lacks */
  INGOT_NO_SPACE = 3,    /* no KV blocks or memory left */
  INGOT_FAILED = 4,      /* generated code reported a failure */
  INGOT_CANCELLED = 5    /* the token callback asked to stop, or the session was closed or reset */
} ingot_status;

typedef struct ingot_package ingot_package;
typedef struct ingot_session ingot_session;

INGOT_API const char* ingot_version(void);
INGOT_API const char* ingot_last_error(void);

/* ---- packages ----------------------------------------------------------------------------------
 */

/* Bytes of the weights that are where they are to be, of all; from the thread that opens. */
typedef void (*ingot_progress_callback)(uint64_t done, uint64_t total, void* user);

typedef struct ingot_options {
  size_t struct_bytes; /* sizeof(ingot_options): lets the struct grow */
  int32_t threads;     /* OpenMP threads of a step; 0: the cores that are free, asked as it works */
  int64_t kv_tokens;   /* KV capacity shared by all sessions, in tokens; 0: eight of the longest
                          sequences. Memory is committed as it is used; a GPU's is taken at once,
                          and by itself no more than leaves room for a step */
  int32_t verify_weights; /* non-zero: hash every entry, the weights too, and refuse entries that
                             the manifest does not list. Code is always hashed */
  int32_t copy_weights;   /* non-zero: copy the weights to memory of this process alone, in huge
                             pages: opening takes longer, each step may read faster */
  const char* manifest_sha256;      /* 64 hexadecimal digits that the manifest's SHA-256 must be, or
                                       NULL. With verify_weights it pins the whole content of the
                                       package; `ingot verify` prints it (docs/security.md) */
  ingot_progress_callback progress; /* of copying the weights to a GPU, or NULL */
  void* progress_user;
} ingot_options;

/* Maps the file, checks it, loads its code and binds the weights in place. `options` may be NULL.
 * The file is to stay as it is while the package is open: put another in its place by renaming,
 * never by writing into it. One that is cut short ends the process (SIGBUS) where its weights are
 * read. */
INGOT_API ingot_status ingot_package_open(const char* path, const ingot_options* options,
                                          ingot_package** package);
/* What sessions of the package need stays until the last of them is closed; the handle is gone at
 * once, so other calls with it must have ended. NULL is ignored. */
INGOT_API void ingot_package_close(ingot_package* package);

/* The manifest as JSON text, owned by the package. */
INGOT_API const char* ingot_package_manifest(const ingot_package* package);
/* Name of the variant whose code was loaded, "x86-64-v3" or "sm_90", owned by the package: the
 * highest that the CPU has and the environment variable INGOT_ISA, where it is set, allows; or that
 * the GPU runs. */
INGOT_API const char* ingot_package_variant(const ingot_package* package);
/* One archive entry ("ingot/tokenizer.json") in place in the mapping; INGOT_BAD_INPUT if absent. */
INGOT_API ingot_status ingot_package_entry(const ingot_package* package, const char* name,
                                           const void** data, size_t* bytes);
/* The bytes that one token id stands for in text, from the package's id-to-bytes table; 0 bytes for
 * a special token; INGOT_BAD_INPUT if the id is out of range or the package has no tokenizer. */
INGOT_API ingot_status ingot_package_token_bytes(const ingot_package* package, int64_t token,
                                                 const char** data, size_t* bytes);

/* The manifest of a package without loading its code: works for any ISA level. Free with
 * ingot_free. */
INGOT_API ingot_status ingot_read_manifest(const char* path, char** json);
INGOT_API void ingot_free(void* memory);

/* ---- sessions ----------------------------------------------------------------------------------
 */

typedef struct ingot_sampling {
  size_t struct_bytes;
  int64_t max_new_tokens; /* >= 1 */
  float temperature;      /* 0: greedy */
  int32_t top_k;          /* 0: off */
  float top_p;            /* 1: off */
  uint64_t seed;
  int32_t ignore_eos;         /* non-zero: stop ids do not stop */
  const int64_t* stop_tokens; /* beside the manifest's; may be NULL */
  size_t stop_count;
} ingot_sampling;

typedef struct ingot_stats {
  size_t struct_bytes;
  int64_t prompt_tokens;
  int64_t new_tokens;
  double prefill_seconds; /* from submission to the first token */
  double decode_seconds;  /* from the first token to the last */
} ingot_stats;

/* Called from the calling thread, once per token as it is made; non-zero stops. It may call what it
 * likes, but not close or reset its own session. */
typedef int32_t (*ingot_token_callback)(int64_t token, void* user);

/* Calls below and ingot_package_run end the OpenMP team that the calling thread has, if any: its
 * next parallel region creates it anew. While another thread of the process keeps one (by a matrix
 * product of PyTorch, say), the threads together are more than the cores, and steps take several
 * times as long; that thread may end it by this. */
INGOT_API void ingot_end_openmp_team(void);

INGOT_API ingot_status ingot_session_create(ingot_package* package, ingot_session** session);
/* Close and reset stop a call that another thread has in progress, and wait for its end. NULL is
 * ignored by close. */
INGOT_API void ingot_session_close(ingot_session* session);
/* Forget the cached tokens; the KV blocks go back to the package. */
INGOT_API void ingot_session_reset(ingot_session* session);
/* Tokens in the session's KV cache. */
INGOT_API int64_t ingot_session_length(const ingot_session* session);

/* Appends `tokens` to the session and generates. A stop token is neither passed to the callback nor
 * counted. `callback` and `stats` may be NULL. INGOT_CANCELLED when the callback stopped it.
 * INGOT_NO_SPACE when the KV cache is full: other sessions go on. Stopped or failed, the session
 * holds the prompt and the tokens that the callback was given, or, if there were none, what it held
 * before the call. */
INGOT_API ingot_status ingot_session_generate(ingot_session* session, const int64_t* tokens,
                                              size_t count, const ingot_sampling* sampling,
                                              ingot_token_callback callback, void* user,
                                              ingot_stats* stats);
/* Appends `tokens` and writes the logits after each of them: float32 [count, vocab_size]. */
INGOT_API ingot_status ingot_session_logits(ingot_session* session, const int64_t* tokens,
                                            size_t count, float* logits);
/* Appends `tokens` and scores what follows the last `target_count` of them: targets[i] after
 * tokens[count - target_count + i]. Writes the natural logarithm of each target's probability given
 * all tokens before it: float64 [target_count]. The logits of a whole text are never held: a few
 * tokens' at a time. */
INGOT_API ingot_status ingot_session_score(ingot_session* session, const int64_t* tokens,
                                           size_t count, const int64_t* targets,
                                           size_t target_count, double* log_probs);

/* ---- other models: arrays in, arrays out -------------------------------------------------------
 */

/* As PyTorch numbers them. */
typedef enum ingot_dtype {
  INGOT_UINT8 = 0,
  INGOT_INT8 = 1,
  INGOT_INT16 = 2,
  INGOT_INT32 = 3,
  INGOT_INT64 = 4,
  INGOT_FLOAT16 = 5,
  INGOT_FLOAT32 = 6,
  INGOT_FLOAT64 = 7,
  INGOT_BOOL = 11,
  INGOT_BFLOAT16 = 15
} ingot_dtype;

/* Contiguous, row-major; data aligned to 64 bytes is fastest. */
typedef struct ingot_array {
  void* data;
  int32_t dtype; /* ingot_dtype */
  int32_t ndim;
  const int64_t* shape; /* [ndim] */
} ingot_array;
typedef struct ingot_results ingot_results;

/* Runs a package that is not a decoder's once. The inputs, in the order of the manifest's `graph`,
 * are only read. INGOT_BAD_INPUT names the input that does not fit. Free the results. */
INGOT_API ingot_status ingot_run(ingot_package* package, const ingot_array* inputs, size_t count,
                                 ingot_results** results);
INGOT_API size_t ingot_results_count(const ingot_results* results);
/* `array` points into the results. */
INGOT_API ingot_status ingot_results_get(const ingot_results* results, size_t index,
                                         ingot_array* array);
INGOT_API void ingot_results_free(ingot_results* results);

/* Embeddings of `count` token sequences, which lie one after the other in `tokens`, special tokens
 * included; `lengths` of each. Pooled and normalised as the manifest's `embedding` says. Writes
 * float32 [count, hidden_size]. */
INGOT_API ingot_status ingot_embed(ingot_package* package, const int64_t* tokens,
                                   const size_t* lengths, size_t count, float* embeddings);

/* ---- tracing -----------------------------------------------------------------------------------
 */

/* Records an event for each step, each kernel and op call in it, and what the runtime does beside,
 * until stopped; process wide. */
INGOT_API void ingot_trace_start(void);
/* Stops and writes Chrome trace events (docs/trace.md; Perfetto reads them). The file appears when
 * it is whole. */
INGOT_API ingot_status ingot_trace_write(const char* path);

/* ---- controls ----------------------------------------------------------------------------------
 * Watch or change what crosses the border between generated code and its host: docs/controls.md.
 * Process wide; environment variables set them too, and are read with the first package.
 */

typedef struct ingot_control {
  const char* name;
  const char* variable; /* of the environment */
  const char* value;    /* what it takes, in words */
  const char* meaning;
} ingot_control;

/* Row `index` of the table of all controls, from 0; INGOT_BAD_INPUT beyond its end. */
INGOT_API ingot_status ingot_control_get(size_t index, ingot_control* control);
/* Turns one on, before what it is to see; a value of "" or "0" turns it off. INGOT_BAD_INPUT for a
 * name or value that it does not know, or a place that it cannot write. */
INGOT_API ingot_status ingot_control_set(const char* name, const char* value);
/* All controls say what they found, and are off. The process's end does the same. INGOT_BAD_INPUT
 * if one could not write all of it. */
INGOT_API ingot_status ingot_controls_report(void);

/* ---- GPUs --------------------------------------------------------------------------------------
 */

/* What there is, as JSON: `driver`, the version of CUDA that it knows ("13.0"), and `devices`, of
 * each `name`, `architecture` ("sm_90"), `multiprocessors`, `memory_bytes`. INGOT_BAD_PACKAGE, with
 * a sentence, where there is no driver or no GPU. Free with ingot_free. */
INGOT_API ingot_status ingot_gpus(char** json);

/* ---- measuring ---------------------------------------------------------------------------------
 */

/* Streams `bytes` of the mapped weights (at least 1 MiB) with the threads of a step; returns GB/s
 * (1e9). 0 for a package that is for a GPU and, with the error set, for none and in a forked child.
 */
INGOT_API double ingot_measure_read(ingot_package* package, size_t bytes);
/* The same of any memory, with `threads` threads; 0: the cores that are free. */
INGOT_API double ingot_measure_memory(const void* data, size_t bytes, int32_t threads);
/* GFLOP/s of multiply-adds, two operations each, of "float32", "bfloat16" or "int8" factors, by the
 * instructions of the level that INGOT_ISA or else the CPU says. Takes about a millisecond. 0, with
 * the error set, for another factor or if INGOT_ISA is wrong. */
INGOT_API double ingot_measure_peak(const char* factor, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
