#include "engine/text/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace thermocline {

// Radford et al. 2019; encoder.py of gpt-2.
const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// The patterns that tokenizer.json files publish, by family. Contractions, then a word with what
// leads it, numbers, other characters, line ends, white space before a word.
#define THERMOCLINE_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define THERMOCLINE_TAIL R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define THERMOCLINE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define THERMOCLINE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"

constexpr char kLlama3Pattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kQwen2Pattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kQwen35Pattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kUfakzekaPattern[] =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kMinicpm5Pattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kBailingPattern[] =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr char kSeedCoderPattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+)" THERMOCLINE_TAIL;
constexpr char kExaoneMoePattern[] = THERMOCLINE_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
// Words by case: upper, then lower.
constexpr char kTekkenPattern[] = R"([^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "*" THERMOCLINE_LOWER
                                  R"(+|[^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "+" THERMOCLINE_LOWER
                                  R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" THERMOCLINE_TAIL;
constexpr char kGpt4oPattern[] =
    R"([^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "*" THERMOCLINE_LOWER "+" THERMOCLINE_CONTRACTIONS
    R"(?|[^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "+" THERMOCLINE_LOWER "*" THERMOCLINE_CONTRACTIONS
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" THERMOCLINE_TAIL;
// The same with Chinese characters apart (tokenization_kimi.py; PCRE2 has no class intersection).
#define THERMOCLINE_NOT_HAN R"((?:(?!\p{Han}))"
constexpr char kKimiPattern[] =
    R"(\p{Han}+|[^\r\n\p{L}\p{N}]?)" THERMOCLINE_NOT_HAN THERMOCLINE_UPPER
    ")*" THERMOCLINE_NOT_HAN THERMOCLINE_LOWER ")+" THERMOCLINE_CONTRACTIONS
    R"(?|[^\r\n\p{L}\p{N}]?)" THERMOCLINE_NOT_HAN THERMOCLINE_UPPER
    ")+" THERMOCLINE_NOT_HAN THERMOCLINE_LOWER ")*" THERMOCLINE_CONTRACTIONS
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" THERMOCLINE_TAIL;
constexpr char kTinyAyaNumbers[] = R"(\d{1,3}(?=(?:\d{3})*\b))";
constexpr char kYoutuScripts[] =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-"
    "ゟ゠-"
    "ヿ]"
    "+";
constexpr char kYoutuPattern[] =
    R"([^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "*" THERMOCLINE_LOWER "+" THERMOCLINE_CONTRACTIONS
    R"(?|[^\r\n\p{L}\p{N}]?)" THERMOCLINE_UPPER "+" THERMOCLINE_LOWER "*" THERMOCLINE_CONTRACTIONS
    R"(?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" THERMOCLINE_TAIL;

constexpr char kOneDigit[] = R"(\p{N})";
constexpr char kThreeDigits[] = R"(\p{N}{1,3})";
constexpr char kAllDigits[] = R"(\p{N}+)";
constexpr char kThreeAscii[] = "[0-9][0-9][0-9]";
constexpr char kLines[] = R"([^\n]+|[\n]+)";
constexpr char kLineEnd[] = R"([\r\n])";
constexpr char kFalconPunctuation[] = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr char kDefaultPunctuation[] = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr char kBloomPattern[] = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

// DeepSeek. The last rule of the first one is \s+$; written so that it looks at a run of spaces
// once.
constexpr char kTrailingSpace[] = R"((?<!\s)\s++$)";
constexpr char kDeepseekLetters[] =
    R"(\s?[A-Za-z\x{00B5}\x{00C0}-\x{00D6}\x{00D8}-\x{00F6}\x{00F8}-\x{01BA})"
    R"(\x{01BC}-\x{01BF}\x{01C4}-\x{0293}\x{0295}-\x{02AF}\x{0370}-\x{0373}\x{0376})"
    R"(\x{0377}\x{037B}-\x{037D}\x{037F}\x{0386}\x{0388}-\x{038A}\x{038C})"
    R"(\x{038E}-\x{03A1}\x{03A3}-\x{03F5}\x{03F7}-\x{0481}\x{048A}-\x{052F})"
    R"(\x{0531}-\x{0556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD})"
    R"(\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45})"
    R"(\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D})"
    R"(\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC})"
    R"(\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D})"
    R"(\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139})"
    R"(\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B})"
    R"(\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D})"
    R"(\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E})"
    R"(\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A})"
    R"(\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB})"
    R"(\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)";
constexpr char kDeepseekPunctuation[] =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr char kDeepseekIdeographs[] = R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
constexpr char kDeepseekCjk[] = "[一-龥぀-ゟ゠-ヿ]+";
constexpr char kDeepseekV3Pattern[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" THERMOCLINE_TAIL;

struct NamedRules {
  std::vector<absl::string_view> names;
  std::vector<const char*> patterns;
  // As the models' own tokenizer.json have it, which GGUF does not repeat.
  bool ignore_merges = false;
  bool nfc = false;
  bool add_bos = false;
};

// The names of tokenizer.ggml.pre (llama-vocab.cpp of llama.cpp).
const std::vector<NamedRules>& AllNamedRules() {
  static const auto* const rules = new std::vector<NamedRules>{
      {{"gpt-2",       "phi-2",           "olmo",         "dolma",       "mpt",     "jais",
        "trillion",    "granite-docling", "gigachat",     "jina-es",     "jina-de", "jina-v1-en",
        "jina-v2-es",  "jina-v2-de",      "jina-v2-code", "roberta-bpe", "a.x-4.0", "mellum",
        "modern-bert", "exaone4"},
       {kGpt2Pattern}},
      {{"default"}, {kDefaultPunctuation, kGpt2Pattern, kAllDigits, kThreeAscii}},
      {{"falcon"}, {kFalconPunctuation, kGpt2Pattern, kThreeAscii}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
        "mellum2"},
       {kOneDigit, kGpt2Pattern}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano"},
       {kLlama3Pattern},
       /*ignore_merges=*/true,
       /*nfc=*/false,
       /*add_bos=*/true},
      {{"glm4", "glm5"}, {kLlama3Pattern}, /*ignore_merges=*/true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {kLlama3Pattern}},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"},
       {kQwen2Pattern},
       /*ignore_merges=*/false,
       /*nfc=*/true},
      {{"stablelm2", "hunyuan", "solar-open", "grok-2"}, {kQwen2Pattern}},
      {{"qwen35"}, {kQwen35Pattern}, /*ignore_merges=*/false, /*nfc=*/true},
      {{"laguna"}, {kLines, kQwen2Pattern}},
      {{"ufakzeka"}, {kUfakzekaPattern}},
      {{"minicpm5"}, {kThreeDigits, kMinicpm5Pattern}, /*ignore_merges=*/true},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailingPattern}},
      {{"seed-coder"}, {kSeedCoderPattern}},
      {{"exaone-moe"}, {kExaoneMoePattern}},
      {{"tekken"},
       {kTekkenPattern},
       /*ignore_merges=*/true,
       /*nfc=*/false,
       /*add_bos=*/true},
      {{"gpt-4o", "llama4", "kanana2"}, {kGpt4oPattern}, /*ignore_merges=*/true},
      {{"minimax-m2"}, {kGpt4oPattern}},
      {{"tiny_aya", "cohere2moe"}, {kTinyAyaNumbers, kGpt4oPattern}},
      {{"youtu"}, {kYoutuScripts, kYoutuPattern}, /*ignore_merges=*/true},
      {{"kimi-k2"}, {kKimiPattern}},
      {{"poro-chat", "bloom", "gpt3-finnish"}, {kBloomPattern}},
      {{"viking"}, {kBloomPattern, kOneDigit}},
      {{"deepseek-llm"},
       {kLineEnd, kDeepseekLetters, kDeepseekPunctuation, kTrailingSpace, kDeepseekIdeographs,
        kAllDigits}},
      {{"deepseek-coder"},
       {kLineEnd, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekIdeographs, kOneDigit}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
       {kThreeDigits, kDeepseekCjk, kDeepseekV3Pattern}},
  };
  return *rules;
}

}  // namespace

absl::StatusOr<NamedPreTokenizer> PreTokenizerByName(absl::string_view name) {
  std::string known;
  for (const NamedRules& rules : AllNamedRules()) {
    for (absl::string_view rules_name : rules.names) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", rules_name);
      if (rules_name != name) continue;
      NamedPreTokenizer result = {{}, rules.ignore_merges, rules.nfc, rules.add_bos};
      for (const char* pattern : rules.patterns) result.split_rules.push_back({pattern});
      return result;
    }
  }
  return absl::UnimplementedError(
      absl::StrCat("pre-tokenizer \"", name, "\" is not supported; supported are ", known));
}

namespace {

// One spelling for patterns that mean the same: some files escape line ends and code points, and
// quantifiers are possessive in some where it makes no difference to what matches.
std::string Spelling(absl::string_view pattern) {
  std::string plain = absl::StrReplaceAll(
      pattern,
      {{"\r", "\\r"}, {"\n", "\\n"}, {kTrailingSpace, R"(\s+$)"}, {"?+", "?"}, {"++", "+"}});
  std::string spelling;
  for (size_t i = 0; i < plain.size();) {
    uint32_t code_point = 0;
    int length = 0;
    if (std::sscanf(plain.c_str() + i, "\\x{%6x}%n", &code_point, &length) == 1 && length > 0) {
      char bytes[4];
      int32_t size = 0;
      UBool failed = false;
      U8_APPEND(reinterpret_cast<uint8_t*>(bytes), size, 4, static_cast<UChar32>(code_point),
                failed);
      if (!failed) spelling.append(bytes, static_cast<size_t>(size));
      i += static_cast<size_t>(length);
    } else {
      spelling.push_back(plain[i++]);
    }
  }
  return spelling;
}

// What Oniguruma, for which tokenizer.json files are written, reads otherwise than PCRE2; "" if
// there is nothing of it.
absl::string_view Foreign(absl::string_view pattern) {
  if (absl::StrContains(pattern, "&&")) return "&& (intersection of classes)";
  for (size_t i = pattern.find("}+"); i != absl::string_view::npos; i = pattern.find("}+", i + 1)) {
    const size_t open = pattern.rfind('{', i);
    const absl::string_view count =
        open == absl::string_view::npos ? "" : pattern.substr(open + 1, i - open - 1);
    if (!count.empty() && count.find_first_not_of("0123456789,") == absl::string_view::npos)
      return "}+ (a repeated count)";
  }
  return "";
}

}  // namespace

std::string NameOfSplitRules(const std::vector<SplitRule>& split_rules, bool ignore_merges,
                             bool nfc) {
  std::vector<std::string> wanted;
  for (const SplitRule& rule : split_rules) wanted.push_back(Spelling(rule.pattern));
  const NamedRules* best = nullptr;
  int best_agrees = -1;
  for (const NamedRules& rules : AllNamedRules()) {
    std::vector<std::string> patterns;
    for (const char* pattern : rules.patterns) patterns.push_back(Spelling(pattern));
    const int agrees = (rules.ignore_merges == ignore_merges) + (rules.nfc == nfc);
    if (patterns != wanted || agrees <= best_agrees) continue;
    best = &rules;
    best_agrees = agrees;
  }
  return best == nullptr ? "" : std::string(best->names[0]);
}

namespace {

// Of PCRE2's compiled code, for matches that its own 32 KiB do not hold.
constexpr size_t kFirstStackBytes = size_t{256} << 10;
constexpr size_t kMaxStackBytes = size_t{64} << 20;
constexpr size_t kSkippedBytes = size_t{64} << 10;

// The first place from `at` on where a character starts, or the end.
size_t CharacterAt(absl::string_view text, size_t at) {
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return std::min(at, text.size());
}

}  // namespace

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
    uint32_t flags = PCRE2_UTF | PCRE2_UCP;
    if (rule.oniguruma) {
      flags |= PCRE2_MULTILINE;  // $ ends every line
      if (const absl::string_view foreign = Foreign(rule.pattern); !foreign.empty()) {
        return absl::UnimplementedError(absl::StrCat("pre-tokenizer pattern with ", foreign,
                                                     " is not supported: ", rule.pattern));
      }
    }
    compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rule.pattern.data()),
                                   rule.pattern.size(), flags, &error, &where, nullptr);
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
  // Made only for the rare match that needs them.
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      nullptr, &pcre2_match_context_free);
  std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack(nullptr,
                                                                          &pcre2_jit_stack_free);
  size_t begin = 0;   // of what has not been handed out
  size_t search = 0;  // where the next match may start
  while (search < piece.size()) {
    // The text is valid UTF-8 by the time it comes here.
    const int found = pcre2_match(rule.code, reinterpret_cast<PCRE2_SPTR>(piece.data()),
                                  piece.size(), search, PCRE2_NO_UTF_CHECK, match, context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
      // A very long match, as of a word without end.
      context.reset(pcre2_match_context_create(nullptr));
      stack.reset(pcre2_jit_stack_create(kFirstStackBytes, kMaxStackBytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {  // beyond all limits: go on further behind
      search = CharacterAt(piece, search + kSkippedBytes);
      continue;
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match);
    if (bounds[1] == bounds[0]) {  // an empty match cuts nothing: step over one character
      search = CharacterAt(piece, bounds[1] + 1);
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
