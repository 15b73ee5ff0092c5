#include "engine/request_table.h"

#include <algorithm>

#include "engine/sampler.h"

namespace thermocline {

ServedRequest::ServedRequest(RequestId request_id, GenerateRequest asked,
                             std::unique_ptr<ResponseSink> to, int64_t room, double now)
    : id(request_id),
      request(std::move(asked)),
      sink(std::move(to)),
      text(request.stop),
      submitted(now),
      max_output(std::min(request.max_tokens.value_or(room), room)) {}

void RequestTable::Add(ServedRequest request) {
  const RequestId id = request.id;
  requests_.emplace(id, std::move(request));
}

ServedRequest* RequestTable::Find(RequestId id) {
  const auto it = requests_.find(id);
  return it != requests_.end() ? &it->second : nullptr;
}

std::vector<RequestId> RequestTable::Expired(double now) const {
  std::vector<RequestId> expired;
  for (const auto& [id, served] : requests_) {
    if (now >= served.request.deadline) expired.push_back(id);
  }
  return expired;
}

OutputToken RequestTable::Choose(const ServedRequest& served, absl::Span<const float> logits,
                                 absl::Span<const int32_t> tokens) const {
  const GenerateRequest& request = served.request;
  const size_t index = static_cast<size_t>(served.num_output);
  const int32_t token = index < request.forced.size()
                            ? request.forced[index]
                            : SampleToken(logits, request.sampling, tokens, served.num_prompt());
  if (request.logprobs < 0) return {token, 0.0f, {}};
  return WithLogprobs(logits, token, request.logprobs);
}

std::optional<RequestTable::End> RequestTable::Deliver(ServedRequest* served, OutputToken token,
                                                       double now) {
  const GenerateRequest& request = served->request;
  ++served->num_output;
  if (served->first_token < 0.0) served->first_token = now;
  const auto contains = [id = token.token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  const bool ended =
      contains(request.stop_token_ids) ||
      (!request.ignore_eos && tokenizer_ != nullptr && contains(tokenizer_->end_tokens()));
  Delta delta;
  if (tokenizer_ != nullptr && !ended) {
    delta.text = served->text.Append(tokenizer_->TokenBytes(token.token, request.show_special));
  }
  delta.tokens.push_back(std::move(token));
  if (!served->sink->OnDelta(std::move(delta))) {
    return End{FinishReason::kCancelled,
               absl::CancelledError("the client does not read its output")};
  }
  if (ended || served->text.stopped()) return End{FinishReason::kStop, absl::OkStatus()};
  if (served->num_output >= served->max_output) {
    return End{FinishReason::kLength, absl::OkStatus()};
  }
  return std::nullopt;
}

void RequestTable::Finish(RequestId id, const End& end, double now) {
  const auto it = requests_.find(id);
  ServedRequest served = std::move(it->second);
  requests_.erase(it);
  if (!served.text.stopped()) {
    std::string rest = served.text.Finish();
    if (!rest.empty()) served.sink->OnDelta({.tokens = {}, .text = std::move(rest)});
  }
  served.sink->OnDone(
      {.reason = end.reason,
       .status = end.status,
       .stop_matched = served.text.matched(),
       .prompt_tokens = served.num_prompt(),
       .completion_tokens = served.num_output,
       .queue_seconds = served.scheduled >= 0.0 ? served.scheduled - served.submitted : -1.0,
       .first_token_seconds =
           served.first_token >= 0.0 ? served.first_token - served.submitted : 0.0,
       .total_seconds = now - served.submitted});
}

}  // namespace thermocline
