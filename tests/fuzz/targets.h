// What is fuzzed: each target takes any bytes and must return, without a crash, a hang or a leak.
//
// libFuzzer runs them (cmake --preset fuzz, needs clang); fuzz_replay_test runs the kept inputs of
// tests/data/corpus in every build.
#ifndef THERMOCLINE_TESTS_FUZZ_TARGETS_H_
#define THERMOCLINE_TESTS_FUZZ_TARGETS_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace thermocline {

struct FuzzTarget {
  absl::string_view name;  // of the program fuzz_<name> and of its corpus folder
  void (*run)(absl::string_view input);
};

absl::Span<const FuzzTarget> FuzzTargets();

// A GGUF file: metadata, tokenizer, model, weights, and the same as an importance matrix.
void FuzzGguf(absl::string_view input);
// model.safetensors beside the configuration of a small Mixtral.
void FuzzSafetensors(absl::string_view input);
// config.json of a folder that holds one small tensor: everything up to the tensors it lacks.
void FuzzConfig(absl::string_view input);
// tokenizer.json, then a text through the tokenizer and back.
void FuzzTokenizerJson(absl::string_view input);
// The source of a chat template, rendered with a conversation that has tools.
void FuzzTemplateSource(absl::string_view input);
// The conversation, as JSON, rendered with templates that use most of the language.
void FuzzTemplateInput(absl::string_view input);
// A model's output, read back in every format, whole and in pieces.
void FuzzOutputParser(absl::string_view input);

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_FUZZ_TARGETS_H_
