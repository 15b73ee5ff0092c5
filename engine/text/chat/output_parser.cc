#include "engine/text/chat/output_parser.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/chat/harmony_parser.h"
#include "engine/text/chat/marker_scanner.h"
#include "engine/text/chat/tool_format.h"

namespace thermocline {
namespace {

const ToolFormat* FindFormat(absl::string_view name) {
  for (const ToolFormat& format : ToolFormats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

// Reasoning between two markers, calls between two others, content everywhere else.
class MarkedParser : public OutputParser {
 public:
  MarkedParser(const OutputFormat& format, nlohmann::ordered_json tools, bool reasoning_open)
      : format_(format),
        tools_(std::move(tools)),
        // Without tools there is nothing to call: what looks like a call is an example.
        calls_(tools_.is_array() && !tools_.empty() ? FindFormat(format.name) : nullptr) {
    state_ = reasoning_open ? State::kReasoning : State::kContent;
    trim_start_ = reasoning_open;
  }

  ChatDelta Append(absl::string_view text) override {
    scanner_.Append(text);
    ChatDelta delta;
    while (Advance(&delta)) {
    }
    return delta;
  }

  ChatDelta Finish() override {
    ChatDelta delta = Append("");
    switch (state_) {
      case State::kContent:
        AddContent(scanner_.TakeRest(), &delta);
        delta.content += space_;
        break;
      case State::kReasoning:
        AddReasoning(scanner_.TakeRest(), &delta);
        break;
      case State::kCall:
        section_ += scanner_.TakeRest();
        EndSection(/*complete=*/false, &delta);
        delta.content += space_;
        break;
    }
    return delta;
  }

 private:
  enum class State { kContent, kReasoning, kCall };

  // Consumes up to the next marker. False when more text is needed.
  bool Advance(ChatDelta* delta) {
    std::string text;
    if (state_ == State::kReasoning) {
      // A call in control tokens ends reasoning too: some models leave its end out.
      std::vector<absl::string_view> markers = {format_.reasoning_end};
      if (calls_ != nullptr && calls_->special_tokens) markers.push_back(calls_->start);
      const int found = scanner_.Take(markers, &text);
      AddReasoning(text, delta);
      if (found < 0) return false;
      // What lies between reasoning and its end is markup; so is what follows, unless content came
      // before.
      space_ = content_space_;
      trim_start_ = !has_content_ || !space_.empty();
      state_ = found == 0 ? State::kContent : State::kCall;
      return true;
    }
    if (state_ == State::kCall) {
      if (calls_->end.empty()) {
        section_ += scanner_.TakeRest();
        return false;
      }
      const absl::string_view markers[] = {calls_->end};
      const int found = scanner_.Take(markers, &section_);
      if (found < 0) return false;
      EndSection(/*complete=*/true, delta);
      state_ = State::kContent;
      return true;
    }
    std::vector<absl::string_view> markers;
    if (!format_.reasoning_begin.empty()) markers.push_back(format_.reasoning_begin);
    if (calls_ != nullptr) markers.push_back(calls_->start);
    const int found = scanner_.Take(markers, &text);
    AddContent(text, delta);
    if (found < 0) return false;
    if (markers[static_cast<size_t>(found)] == format_.reasoning_begin) {
      state_ = State::kReasoning;
      trim_start_ = true;
      content_space_ = has_content_ ? space_ : "";
      space_.clear();
    } else {
      state_ = State::kCall;
    }
    return true;
  }

  void EndSection(bool complete, ChatDelta* delta) {
    std::vector<ToolCall> calls;
    if ((complete || calls_->shows_its_end) && calls_->parse(section_, tools_, &calls)) {
      space_.clear();  // between content and calls
      trim_start_ = true;
      for (ToolCall& call : calls) delta->tool_calls.push_back(std::move(call));
    } else {
      trim_start_ = false;
      AddContent(absl::StrCat(calls_->start, section_, complete ? calls_->end : ""), delta);
    }
    section_.clear();
  }

  // White space is held back until something follows it: before a marker it belongs to the markup.
  void AddHeld(absl::string_view text, std::string* out) {
    if (trim_start_) text = absl::StripLeadingAsciiWhitespace(text);
    if (text.empty()) return;
    trim_start_ = false;
    const absl::string_view body = absl::StripTrailingAsciiWhitespace(text);
    if (!body.empty()) {
      absl::StrAppend(out, space_, body);
      space_.clear();
    }
    absl::StrAppend(&space_, text.substr(body.size()));
  }
  void AddContent(absl::string_view text, ChatDelta* delta) {
    const bool plain = calls_ == nullptr && format_.reasoning_begin.empty();
    if (plain) {
      absl::StrAppend(&delta->content, text);
    } else {
      AddHeld(text, &delta->content);
    }
    has_content_ |= !delta->content.empty();
  }
  void AddReasoning(absl::string_view text, ChatDelta* delta) { AddHeld(text, &delta->reasoning); }

  OutputFormat format_;
  nlohmann::ordered_json tools_;
  const ToolFormat* calls_;
  State state_;
  MarkerScanner scanner_;
  std::string section_;        // of calls, so far
  std::string space_;          // held back
  std::string content_space_;  // held back when reasoning began inside content
  bool has_content_ = false;   // some came out
  bool trim_start_;            // white space at the beginning is markup
};

}  // namespace

OutputFormat DetectOutputFormat(absl::string_view chat_template,
                                const std::function<bool(absl::string_view)>& is_special) {
  OutputFormat format;
  format.name = "plain";
  if (absl::StrContains(chat_template, "<|channel|>")) {
    format.name = "harmony";
    format.needs_special_tokens = true;
    return format;
  }
  for (const ToolFormat& tools : ToolFormats()) {
    if (!absl::StrContains(chat_template, tools.mark)) continue;
    format.name = std::string(tools.name);
    format.needs_special_tokens = tools.special_tokens || (is_special && is_special(tools.start));
    break;
  }
  if (absl::StrContains(chat_template, "</think>")) {
    format.reasoning_begin = "<think>";
    format.reasoning_end = "</think>";
    format.needs_special_tokens |= is_special && is_special(format.reasoning_end);
  } else if (absl::StrContains(chat_template, "[/THINK]")) {
    format.reasoning_begin = "[THINK]";
    format.reasoning_end = "[/THINK]";
    format.needs_special_tokens = true;
  }
  return format;
}

std::unique_ptr<OutputParser> MakeOutputParser(const OutputFormat& format,
                                               const nlohmann::ordered_json& tools,
                                               absl::string_view prompt) {
  if (format.name == "harmony") return std::make_unique<HarmonyParser>();
  const bool open =
      !format.reasoning_begin.empty() &&
      absl::EndsWith(absl::StripTrailingAsciiWhitespace(prompt), format.reasoning_begin);
  return std::make_unique<MarkedParser>(format, tools, open);
}

}  // namespace thermocline
