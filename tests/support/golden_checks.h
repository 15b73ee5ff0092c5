// What a model must reproduce of a reference checkpoint, from whatever file and on whatever
// backend.
#ifndef THERMOCLINE_TESTS_SUPPORT_GOLDEN_CHECKS_H_
#define THERMOCLINE_TESTS_SUPPORT_GOLDEN_CHECKS_H_

#include <string>

#include "tests/support/golden.h"

namespace thermocline {

// Options under which the references hold: nothing is rounded to 8 or 16 bits.
EngineOptions ExactOptions(const std::string& model_path, const std::string& backend);
// Bound on relative errors, by backend.
double ToleranceOf(const std::string& backend);

// Hidden states after every layer but the last, so that a failure names the layer, then logits.
void ExpectHiddenStatesAndLogits(const Golden& golden, EngineOptions options);
// Logits alone, [T, vocab], of a run over all of the prompt.
void ExpectLogits(const ScoreOutput& output, const PlainTensor& expected, double tolerance);
// The greedy continuation of the prompt, alone, and among others with prompts cut into chunks.
// Without one in the reference: its first token by the reference's logits, and the rest is the same
// in both runs.
void ExpectGreedy(const Golden& golden, EngineOptions alone, EngineOptions among_others);

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_GOLDEN_CHECKS_H_
