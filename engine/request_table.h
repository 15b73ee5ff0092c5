// RequestTable: the requests that the engine serves: what each asked for, what it has got so far,
// and how it ends. The engine thread only.
#ifndef THERMOCLINE_ENGINE_REQUEST_TABLE_H_
#define THERMOCLINE_ENGINE_REQUEST_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/text/text_stream.h"
#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {

struct ServedRequest {
  ServedRequest(RequestId request_id, GenerateRequest asked, std::unique_ptr<ResponseSink> to,
                int64_t room, double now);

  int64_t num_prompt() const { return static_cast<int64_t>(request.prompt.size()); }

  RequestId id;
  GenerateRequest request;
  std::unique_ptr<ResponseSink> sink;
  TextStream text;
  // On the engine's clock; negative: not yet.
  double submitted, scheduled = -1.0, first_token = -1.0;
  int64_t num_output = 0;
  int64_t max_output;  // tokens; what the request asks for, or the room that its context leaves
};

class RequestTable {
 public:
  // Null: no tokenizer, tokens only. It outlives the table.
  explicit RequestTable(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  bool empty() const { return requests_.empty(); }
  RequestId first() const { return requests_.begin()->first; }
  void Add(ServedRequest request);
  // Null: it has ended.
  ServedRequest* Find(RequestId id);
  // Whose deadline has passed.
  std::vector<RequestId> Expired(double now) const;

  // The token that follows `tokens` (prompt, then output). logits [vocab]. Pure; any thread.
  OutputToken Choose(const ServedRequest& request, absl::Span<const float> logits,
                     absl::Span<const int32_t> tokens) const;

  struct End {
    FinishReason reason = FinishReason::kStop;
    absl::Status status;
  };
  // Hands a token to the request's sink. What ends the request with it, if anything does.
  std::optional<End> Deliver(ServedRequest* request, OutputToken token, double now);
  // The last text and the result go to the request's sink, and it is gone.
  void Finish(RequestId id, const End& end, double now);

 private:
  const Tokenizer* tokenizer_;
  std::map<RequestId, ServedRequest> requests_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_REQUEST_TABLE_H_
