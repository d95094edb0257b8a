#include "score.h"

#include <cmath>

#include "largest.h"

namespace ingot {
void log_probabilities(const float* logits, int64_t rows, int64_t vocab_size,
                       const int64_t* targets, double* log_probs) {
#pragma omp parallel for  // a row of 150 000 exponentials takes a thread milliseconds
  for (int64_t r = 0; r < rows; r++) {
    const float* row = logits + r * vocab_size;
    const double largest = largest_of(row, vocab_size);
    double total = 0;
    for (int64_t v = 0; v < vocab_size; v++) total += std::exp(row[v] - largest);
    log_probs[r] = row[targets[r]] - largest - std::log(total);
  }
}
}  // namespace ingot
