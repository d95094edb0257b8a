// ThreadSanitizer does not see the barrier at the end of a region (barriers.h), so that what a team
// was given seems to be taken from it while it reads: the cores that `spread` (team.cpp) names.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "race:spread\n";
}
