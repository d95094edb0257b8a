#pragma once
#include <gtest/gtest.h>

// ThreadSanitizer does not see the barriers of an OpenMP library that was built without it.
#ifdef __SANITIZE_THREAD__
#define SKIP_WHERE_BARRIERS_ARE_UNSEEN() GTEST_SKIP()
#else
#define SKIP_WHERE_BARRIERS_ARE_UNSEEN()
#endif
