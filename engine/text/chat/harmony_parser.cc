#include "engine/text/chat/harmony_parser.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"

namespace thermocline {
namespace {

constexpr absl::string_view kStart = "<|start|>", kChannel = "<|channel|>",
                            kMessage = "<|message|>", kEnd = "<|end|>", kReturn = "<|return|>",
                            kCall = "<|call|>";
constexpr absl::string_view kRecipient = "to=functions.";

// The word after a mark, up to white space or the next token.
std::string WordAfter(absl::string_view text, absl::string_view mark) {
  const size_t at = text.find(mark);
  if (at == absl::string_view::npos) return "";
  text.remove_prefix(at + mark.size());
  return std::string(text.substr(0, text.find_first_of(" \t\r\n<")));
}

}  // namespace

ChatDelta HarmonyParser::Append(absl::string_view text) {
  scanner_.Append(text);
  ChatDelta delta;
  while (Advance(&delta)) {
  }
  return delta;
}

bool HarmonyParser::Advance(ChatDelta* delta) {
  std::string text;
  if (state_ == State::kBetween) {
    // A model that does not begin with a header means its answer.
    const absl::string_view markers[] = {kStart, kChannel, kMessage};
    const int found = scanner_.Take(markers, &text);
    absl::StrAppend(&delta->content, text);
    if (found < 0) return false;
    header_ = std::string(markers[found]);
    if (found == 2) {
      StartBody();
    } else {
      state_ = State::kHeader;
    }
    return true;
  }
  if (state_ == State::kHeader) {
    const absl::string_view markers[] = {kMessage, kEnd};
    const int found = scanner_.Take(markers, &text);
    header_ += text;
    if (found < 0) return false;
    if (found == 1) {  // no message after all: what it said is not lost
      absl::StrAppend(&delta->content, header_, kEnd);
      state_ = State::kBetween;
      return true;
    }
    header_ += std::string(kMessage);
    StartBody();
    return true;
  }
  const absl::string_view markers[] = {kEnd, kReturn, kCall, kStart};
  const int found = scanner_.Take(markers, &text);
  AddBody(text, delta);
  if (found < 0) return false;
  EndBody(markers[found], delta);
  state_ = State::kBetween;
  if (markers[found] == kStart) {
    header_ = std::string(kStart);
    state_ = State::kHeader;
  }
  return true;
}

void HarmonyParser::StartBody() {
  name_ = WordAfter(header_, kRecipient);
  const std::string channel = WordAfter(header_, kChannel);
  state_ = !name_.empty()          ? State::kCall
           : channel == "analysis" ? State::kReasoning
                                   : State::kContent;
  body_.clear();
}

void HarmonyParser::AddBody(absl::string_view text, ChatDelta* delta) {
  std::string* out = state_ == State::kReasoning ? &delta->reasoning
                     : state_ == State::kCall    ? &body_
                                                 : &delta->content;
  absl::StrAppend(out, text);
}

void HarmonyParser::EndBody(absl::string_view end, ChatDelta* delta) {
  if (state_ != State::kCall) return;
  absl::StatusOr<nlohmann::ordered_json> arguments = ParseOrderedJson(body_);
  if (arguments.ok() && arguments->is_object()) {
    delta->tool_calls.push_back({"", name_, body_});
  } else {
    absl::StrAppend(&delta->content, header_, body_, end);
  }
}

ChatDelta HarmonyParser::Finish() {
  ChatDelta delta = Append("");
  const std::string rest = scanner_.TakeRest();
  switch (state_) {
    case State::kBetween:
      delta.content += rest;
      break;
    case State::kHeader:
      // <|start|>assistant alone is markup; more than that was on its way to be something.
      if (header_ + rest != absl::StrCat(kStart, "assistant"))
        absl::StrAppend(&delta.content, header_, rest);
      break;
    case State::kReasoning:
    case State::kContent:
    case State::kCall:
      AddBody(rest, &delta);
      // The token that ends a call also ends the generation and is not part of the text.
      EndBody("", &delta);
      break;
  }
  return delta;
}

}  // namespace thermocline
