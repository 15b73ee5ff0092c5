// PreTokenizer: cuts text into the pieces inside which byte-pair merges happen.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_PRE_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace thermocline {

// One rule: every match of a pattern becomes a piece of its own, and so does what lies between
// matches.
struct SplitRule {
  std::string pattern;     // PCRE2, Unicode properties on
  bool removed = false;    // the matches are dropped instead
  bool oniguruma = false;  // written for Oniguruma, as those of tokenizer.json
};

// Const after creation; any thread.
class PreTokenizer {
 public:
  // Rules are applied one after another, each inside the pieces of the one before. INVALID_ARGUMENT
  // for a pattern that does not compile, UNIMPLEMENTED for one that would
  // mean something else here.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(const std::vector<SplitRule>& rules);
  ~PreTokenizer();

  // Views into `text`, in order. Linear in practice: a match that exceeds PCRE2's limits is not
  // looked for in the next 64 KiB.
  std::vector<absl::string_view> Split(absl::string_view text) const;

 private:
  struct CompiledRule;
  PreTokenizer() = default;
  void Apply(const CompiledRule& rule, absl::string_view piece,
             std::vector<absl::string_view>* out) const;

  std::vector<std::unique_ptr<CompiledRule>> rules_;
};

// What GGUF's tokenizer.ggml.pre stands for.
struct NamedPreTokenizer {
  std::vector<SplitRule> split_rules;
  bool ignore_merges = false;  // a whole piece that is a token needs no merges
  bool nfc = false;            // the text is normalised to Unicode form C first
  bool add_bos = false;        // unless the file says otherwise
};
// UNIMPLEMENTED lists the known names.
absl::StatusOr<NamedPreTokenizer> PreTokenizerByName(absl::string_view name);
// The name for the rules of a tokenizer.json, for conversion, of those that differ in the rest the
// nearest; "" when no name stands for them.
std::string NameOfSplitRules(const std::vector<SplitRule>& split_rules, bool ignore_merges,
                             bool nfc);

// GPT-2's rule, which the ByteLevel pre-tokenizer of tokenizer.json implies.
extern const char kGpt2Pattern[];

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_PRE_TOKENIZER_H_
