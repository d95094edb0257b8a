// What ThreadSanitizer takes for races. It does not see the barriers at the ends of a region
// (barriers.h), so that what a team was given seems to be taken from it while it reads: the cores
// that `spread` and `unbind` (team.cpp) name, the tables of `map_ahead` (pages.cpp), the jobs whose
// tokens `Engine::sample` samples. Nor does it see that glibc frees the thread-local memory of a
// thread that has ended.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:spread\nrace:unbind\nrace:map_ahead\nrace:Engine::sample\nrace:_dl_deallocate_tls\n";
}
