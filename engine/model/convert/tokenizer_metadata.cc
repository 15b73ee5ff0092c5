#include "engine/model/convert/tokenizer_metadata.h"

#include <algorithm>
#include <iterator>
#include <set>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/formats/gguf_types.h"
#include "engine/text/tokenizer/tokenizer_json.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxVocab = 1 << 24;

// A token that no file marks as special but whose spelling says so.
bool LooksSpecial(absl::string_view text) {
  if (text == "<pad>" || text == "<mask>" || text == "[@BOS@]") return true;
  return (absl::StartsWith(text, "<|") && absl::EndsWith(text, "|>")) ||
         (absl::StartsWith(text, "<\uFF5C") && absl::EndsWith(text, "\uFF5C>")) ||
         absl::StartsWith(text, "<unused");
}

using Warn = std::function<void(const std::string&)>;

class MetadataWriter {
 public:
  MetadataWriter(const TokenizerOptions& options, const nlohmann::json& config, Warn warn,
                 GgufWriter* writer)
      : options_(options), warn_(std::move(warn)), writer_(writer) {
    texts_ = options.tokens;
    const auto type = config.find("model_type");
    is_phi3_ = type != config.end() && (*type == "phi3" || *type == "phimoe");
    // As many tokens as the embedding has rows.
    const auto size = config.find("vocab_size");
    if (size != config.end() && size->is_number_integer()) {
      const int64_t vocab = size->get<int64_t>();
      if (vocab > static_cast<int64_t>(texts_.size()) && vocab <= kMaxVocab)
        texts_.resize(static_cast<size_t>(vocab));
    }
    types_.assign(texts_.size(), kNormalToken);
    for (size_t id = 0; id < texts_.size(); ++id) {
      if (!texts_[id].empty()) continue;
      texts_[id] = absl::StrCat("[PAD", id, "]");
      types_[id] = kUnusedToken;
    }
    for (const AddedToken& token : options.added) {
      const size_t id = static_cast<size_t>(token.id);
      const bool control = token.special || LooksSpecial(token.text);
      texts_[id] = control ? token.text : absl::StrReplaceAll(token.text, {{"\u2581", " "}});
      types_[id] = control ? kControlToken : kUserDefinedToken;
    }
  }

  void WriteBpe(const BpeOptions& options) {
    writer_->Add("tokenizer.ggml.model", std::string("gpt2"));
    bool nfc = false;
    for (const NormalizerStep& step : options.normalizer)
      nfc |= step.kind == NormalizerStep::Kind::kNfc;
    std::string pre = NameOfSplitRules(options.split_rules, options.ignore_merges, nfc);
    if (pre.empty()) {
      pre = "default";
      warn_(
          "llama.cpp has no name for this tokenizer's split rules; \"default\" is written, and "
          "texts will be cut differently there and in this file");
    } else if (const auto named = PreTokenizerByName(pre); named.ok()) {
      if (named->nfc != nfc) {
        warn_(absl::StrCat("the folder's tokenizer ", nfc ? "normalises" : "does not normalise",
                           " texts to NFC, the GGUF file's (", pre, ") ",
                           nfc ? "does not" : "does"));
      }
      if (named->ignore_merges != options.ignore_merges) {
        warn_(absl::StrCat("ignore_merges = ", options.ignore_merges,
                           " of the folder's tokenizer is lost: ", pre, " means the other"));
      }
    }
    WarnOfLostParts({NormalizerStep::Kind::kNfc});
    writer_->Add("tokenizer.ggml.pre", pre);
    std::vector<std::string> merges;
    for (const auto& [left, right] : options.merges) {
      merges.push_back(absl::StrCat(absl::StrReplaceAll(left, {{" ", "\u0120"}}), " ",
                                    absl::StrReplaceAll(right, {{" ", "\u0120"}})));
    }
    WriteTokens({});
    writer_->Add("tokenizer.ggml.merges", merges);
  }

  void WritePieces(const SentencePieceOptions& options) {
    WarnOfLostParts({NormalizerStep::Kind::kPrepend, NormalizerStep::Kind::kReplace});
    if (options.prefix != SentencePieceOptions::Prefix::kNever) {
      warn_(
          "GGUF puts a space before every part of a text, this tokenizer not before another space"
          " nor after added tokens: such texts will be cut differently");
    }
    const bool unigram = options.model == SentencePieceOptions::Model::kUnigram;
    writer_->Add("tokenizer.ggml.model", std::string(unigram ? "t5" : "llama"));
    writer_->Add("tokenizer.ggml.pre", std::string("default"));
    std::vector<double> scores(texts_.size(), 0.0);
    for (size_t id = 0; id < options.scores.size(); ++id) scores[id] = options.scores[id];
    // A token scores by the rank of the first pair that makes it.
    std::map<std::string, size_t> ids;
    for (size_t id = 0; id < options.tokens.size(); ++id) ids.emplace(options.tokens[id], id);
    for (size_t rank = options.merges.size(); rank-- > 0;) {
      const auto it = ids.find(options.merges[rank].first + options.merges[rank].second);
      if (it != ids.end()) scores[it->second] = -static_cast<double>(rank) - 1.0;
    }
    for (size_t id = 0; id < options.tokens.size(); ++id) {
      const std::string& text = texts_[id];
      if (types_[id] == kNormalToken && options.byte_fallback && text.size() == 6 &&
          absl::StartsWith(text, "<0x") && absl::EndsWith(text, ">")) {
        types_[id] = kByteToken;
      }
    }
    const int32_t unk = options.special.unk;
    if (unk >= 0) types_[static_cast<size_t>(unk)] = kUnknownToken;
    WriteTokens(scores);
    bool prefix = options.prefix != SentencePieceOptions::Prefix::kNever;
    for (const NormalizerStep& step : options.normalizer)
      prefix |= step.kind == NormalizerStep::Kind::kPrepend;
    writer_->Add("tokenizer.ggml.add_space_prefix", prefix);
  }

  void WriteSpecial() {
    const SpecialTokens& special = options_.special;
    for (const auto& [key, id] :
         {std::pair{"bos_token_id", special.bos}, std::pair{"eos_token_id", special.eos},
          std::pair{"padding_token_id", special.pad}, std::pair{"unknown_token_id", special.unk}}) {
      if (id >= 0) writer_->Add(absl::StrCat("tokenizer.ggml.", key), int64_t{id});
    }
    const char* const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    std::set<int32_t> written = {special.eos};
    for (int32_t id : options_.end_tokens) {
      if (id < 0 || static_cast<size_t>(id) >= texts_.size() || !written.insert(id).second)
        continue;
      const size_t further = written.size() - 2;  // eos is the first
      if (further < std::size(keys)) {
        writer_->Add(keys[further], int64_t{id});
      } else {
        WarnOfLost(absl::StrCat("the end of generation at token ", id));
      }
    }
    writer_->Add("tokenizer.ggml.add_bos_token", special.add_bos);
    if (!options_.chat_template.empty())
      writer_->Add("tokenizer.chat_template", options_.chat_template);
  }

 private:
  void WarnOfLost(const std::string& what) const {
    warn_(absl::StrCat("GGUF has no place for ", what, " of the folder's tokenizer"));
  }
  void WarnOfLostParts(std::initializer_list<NormalizerStep::Kind> kept) const {
    for (const NormalizerStep& step : options_.normalizer) {
      if (std::find(kept.begin(), kept.end(), step.kind) == kept.end()) WarnOfLost("a normalizer");
    }
    int num_strip = 0;
    for (const AddedToken& token : options_.added) {
      const bool restored = is_phi3_ && token.rstrip && !token.lstrip;
      num_strip += (token.lstrip || token.rstrip) && !restored;
    }
    if (num_strip > 0)
      WarnOfLost(absl::StrCat("lstrip and rstrip of ", num_strip, " added tokens"));
  }
  void WriteTokens(const std::vector<double>& scores) {
    writer_->Add("tokenizer.ggml.tokens", texts_);
    if (!scores.empty()) writer_->Add("tokenizer.ggml.scores", scores);
    writer_->Add("tokenizer.ggml.token_type", types_);
  }

  const TokenizerOptions& options_;
  Warn warn_;
  GgufWriter* writer_;
  std::vector<std::string> texts_;
  std::vector<int64_t> types_;
  bool is_phi3_ = false;  // whose rstrip is read back
};

}  // namespace

absl::Status AddTokenizerMetadata(const std::string& folder, const nlohmann::json& config,
                                  const std::function<void(const std::string&)>& given_warn,
                                  GgufWriter* writer) {
  const auto warn = [&](const std::string& message) {
    if (given_warn) given_warn(message);
  };
  absl::StatusOr<AnyTokenizerOptions> options = ReadTokenizerFolder(folder);
  if (absl::IsNotFound(options.status())) {
    warn("the folder has no tokenizer.json: the file will take token ids only");
    writer->Add("tokenizer.ggml.model", std::string("none"));
    return absl::OkStatus();
  }
  if (!options.ok()) return options.status();
  if (const BpeOptions* bpe = std::get_if<BpeOptions>(&*options)) {
    MetadataWriter metadata(*bpe, config, warn, writer);
    metadata.WriteBpe(*bpe);
    metadata.WriteSpecial();
  } else {
    const SentencePieceOptions& pieces = std::get<SentencePieceOptions>(*options);
    MetadataWriter metadata(pieces, config, warn, writer);
    metadata.WritePieces(pieces);
    metadata.WriteSpecial();
  }
  return absl::OkStatus();
}

}  // namespace thermocline
