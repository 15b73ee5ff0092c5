// HarmonyParser: gpt-oss's channels.
//
//   <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary
//   to=functions.NAME <|constrain|>json<|message|>{...}<|call|>
//
// analysis is reasoning, final is content, commentary with a recipient is a call and without one
// content. Source: OpenAI 2025, the harmony response format.
#ifndef THERMOCLINE_ENGINE_TEXT_CHAT_HARMONY_PARSER_H_
#define THERMOCLINE_ENGINE_TEXT_CHAT_HARMONY_PARSER_H_

#include <string>

#include "engine/text/chat/marker_scanner.h"
#include "engine/text/chat/output_parser.h"

namespace thermocline {

class HarmonyParser : public OutputParser {
 public:
  ChatDelta Append(absl::string_view text) override;
  ChatDelta Finish() override;

 private:
  enum class State { kBetween, kHeader, kReasoning, kContent, kCall };

  bool Advance(ChatDelta* delta);
  void StartBody();
  void AddBody(absl::string_view text, ChatDelta* delta);
  void EndBody(absl::string_view end, ChatDelta* delta);

  State state_ = State::kBetween;
  MarkerScanner scanner_;
  std::string header_;  // of the message being read, with its markers
  std::string name_;    // of the function called
  std::string body_;    // of the call, so far
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_CHAT_HARMONY_PARSER_H_
