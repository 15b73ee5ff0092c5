#include "engine/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"

namespace thermocline {

// Radford et al. 2019; encoder.py of gpt-2.
const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// tokenizer.json of Llama 3 and Qwen 2; they differ in how many digits stay together.
constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kOneDigit[] = R"(\p{N})";

struct NamedRules {
  absl::string_view name;
  std::vector<const char*> patterns;
};

const std::vector<NamedRules>& AllNamedRules() {
  static const auto* const rules = new std::vector<NamedRules>{
      {"gpt-2", {kGpt2Pattern}},
      {"olmo", {kGpt2Pattern}},
      {"dolma", {kGpt2Pattern}},
      {"default", {kGpt2Pattern}},
      {"smollm", {kOneDigit, kGpt2Pattern}},
      {"starcoder", {kOneDigit, kGpt2Pattern}},
      {"refact", {kOneDigit, kGpt2Pattern}},
      {"command-r", {kOneDigit, kGpt2Pattern}},
      {"llama-bpe", {kLlama3Pattern}},
      {"llama3", {kLlama3Pattern}},
      {"llama-v3", {kLlama3Pattern}},
      {"qwen2", {kQwen2Pattern}},
      {"deepseek-r1-qwen", {kQwen2Pattern}},
  };
  return *rules;
}

}  // namespace

absl::StatusOr<std::vector<SplitRule>> SplitRulesByName(absl::string_view name) {
  std::string known;
  for (const NamedRules& named : AllNamedRules()) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", named.name);
    if (named.name != name) continue;
    std::vector<SplitRule> rules;
    for (const char* pattern : named.patterns) rules.push_back({pattern, false});
    return rules;
  }
  return absl::UnimplementedError(
      absl::StrCat("pre-tokenizer \"", name, "\" is not supported; supported are ", known));
}

struct PreTokenizer::CompiledRule {
  pcre2_code* code = nullptr;
  bool removed = false;
  ~CompiledRule() { pcre2_code_free(code); }
};

PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    const std::vector<SplitRule>& rules) {
  std::unique_ptr<PreTokenizer> result(new PreTokenizer());
  for (const SplitRule& rule : rules) {
    int error = 0;
    PCRE2_SIZE where = 0;
    auto compiled = std::make_unique<CompiledRule>();
    compiled->removed = rule.removed;
    compiled->code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rule.pattern.data()), rule.pattern.size(),
                      PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
    if (compiled->code == nullptr) {
      PCRE2_UCHAR message[256];
      pcre2_get_error_message(error, message, sizeof(message));
      return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer pattern fails at offset ",
                                                     where, ": ",
                                                     reinterpret_cast<const char*>(message)));
    }
    pcre2_jit_compile(compiled->code,
                      PCRE2_JIT_COMPLETE);  // only speed: without it the interpreter runs
    result->rules_.push_back(std::move(compiled));
  }
  return result;
}

std::vector<absl::string_view> PreTokenizer::Split(absl::string_view text) const {
  std::vector<absl::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const auto& rule : rules_) {
    std::vector<absl::string_view> next;
    for (absl::string_view piece : pieces) Apply(*rule, piece, &next);
    pieces.swap(next);
  }
  return pieces;
}

void PreTokenizer::Apply(const CompiledRule& rule, absl::string_view piece,
                         std::vector<absl::string_view>* out) const {
  pcre2_match_data* match = pcre2_match_data_create_from_pattern(rule.code, nullptr);
  size_t begin = 0;   // of what has not been handed out
  size_t search = 0;  // where the next match may start
  while (search < piece.size()) {
    // The text is valid UTF-8 by the time it comes here.
    const int found = pcre2_match(rule.code, reinterpret_cast<PCRE2_SPTR>(piece.data()),
                                  piece.size(), search, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (found < 0) break;
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match);
    if (bounds[1] == bounds[0]) {  // an empty match cuts nothing: step over one character
      search = bounds[1] + 1;
      while (search < piece.size() && (static_cast<unsigned char>(piece[search]) & 0xC0) == 0x80)
        ++search;
      continue;
    }
    if (bounds[0] > begin) out->push_back(piece.substr(begin, bounds[0] - begin));
    if (!rule.removed) out->push_back(piece.substr(bounds[0], bounds[1] - bounds[0]));
    begin = search = bounds[1];
  }
  if (begin < piece.size()) out->push_back(piece.substr(begin));
  pcre2_match_data_free(match);
}

}  // namespace thermocline
