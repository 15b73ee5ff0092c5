// Every field of a request at the limits of what is allowed, and just beyond.
#include "engine/request.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thermocline {
namespace {

constexpr int64_t kVocab = 10, kContext = 4;

absl::Status Check(const std::function<void(GenerateRequest*)>& change) {
  GenerateRequest request;
  request.prompt = {1, 2};
  change(&request);
  return ValidateRequest(request, kVocab, kContext);
}

// A number of the request, the values that are allowed and those that are not.
struct Field {
  const char* name;
  std::function<void(GenerateRequest*, double)> set;
  std::vector<double> good, bad;
};

TEST(ValidateRequest, NumbersUpToTheirLimits) {
  const float above_zero = std::nextafter(0.0f, 1.0f), above_one = std::nextafter(1.0f, 2.0f),
              above_two = std::nextafter(2.0f, 3.0f), above_100 = std::nextafter(100.0f, 200.0f);
  const std::vector<Field> fields = {
      {"temperature",
       [](GenerateRequest* r, double v) { r->sampling.temperature = static_cast<float>(v); },
       {0.0, 100.0},
       {-above_zero, above_100, NAN, INFINITY}},
      {"top_k",
       [](GenerateRequest* r, double v) { r->sampling.top_k = static_cast<int>(v); },
       {0, 1, 2147483647},
       {-1}},
      {"top_p",
       [](GenerateRequest* r, double v) { r->sampling.top_p = static_cast<float>(v); },
       {above_zero, 1.0},
       {0.0, above_one, NAN}},
      {"min_p",
       [](GenerateRequest* r, double v) { r->sampling.min_p = static_cast<float>(v); },
       {0.0, 1.0},
       {-above_zero, above_one, NAN}},
      {"repetition_penalty",
       [](GenerateRequest* r, double v) { r->sampling.repetition_penalty = static_cast<float>(v); },
       {above_zero, 100.0},
       {0.0, -1.0, above_100, NAN}},
      {"presence_penalty",
       [](GenerateRequest* r, double v) { r->sampling.presence_penalty = static_cast<float>(v); },
       {-2.0, 2.0},
       {-above_two, above_two, NAN}},
      {"frequency_penalty",
       [](GenerateRequest* r, double v) { r->sampling.frequency_penalty = static_cast<float>(v); },
       {-2.0, 2.0},
       {-above_two, above_two, NAN}},
      {"logit_bias",
       [](GenerateRequest* r, double v) { r->sampling.logit_bias[1] = static_cast<float>(v); },
       {-100.0, 100.0},
       {-above_100, above_100, NAN, INFINITY}},
      {"max_tokens",
       [](GenerateRequest* r, double v) { r->max_tokens = static_cast<int64_t>(v); },
       {0, 1, 1e15},
       {-1}},
      {"logprobs",
       [](GenerateRequest* r, double v) { r->logprobs = static_cast<int>(v); },
       {-1, 0, 20},
       {-2, 21}},
  };
  for (const Field& field : fields) {
    for (double value : field.good) {
      const absl::Status status = Check([&](GenerateRequest* r) { field.set(r, value); });
      EXPECT_TRUE(status.ok()) << status;
    }
    for (double value : field.bad) {
      const absl::Status status = Check([&](GenerateRequest* r) { field.set(r, value); });
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field.name << " " << value;
      EXPECT_NE(status.message().find(field.name), std::string::npos) << status;
    }
  }
}

TEST(ValidateRequest, TokensAreThoseOfTheVocabulary) {
  const std::vector<std::pair<const char*, std::function<void(GenerateRequest*, int32_t)>>> places =
      {{"prompt token", [](GenerateRequest* r, int32_t t) { r->prompt[1] = t; }},
       {"forced token",
        [](GenerateRequest* r, int32_t t) {
          r->forced = {1, t};
        }},
       {"logit_bias", [](GenerateRequest* r, int32_t t) { r->sampling.logit_bias[t] = 1.0f; }}};
  for (const auto& [name, set] : places) {
    for (int32_t token : {0, 9}) {
      EXPECT_TRUE(Check([&](GenerateRequest* r) { set(r, token); }).ok()) << name;
    }
    for (int32_t token : {-1, 10}) {
      const absl::Status status = Check([&](GenerateRequest* r) { set(r, token); });
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
      EXPECT_NE(status.message().find(name), std::string::npos) << status;
    }
  }
}

TEST(ValidateRequest, ListsHaveLimits) {
  const std::vector<std::pair<size_t, std::function<void(GenerateRequest*, size_t)>>> lists = {
      {kMaxStopStrings, [](GenerateRequest* r, size_t n) { r->stop.assign(n, "x"); }},
      {kMaxStopBytes,
       [](GenerateRequest* r, size_t n) {
         r->stop = {"y", std::string(n, 'x')};
       }},
      {kMaxStopTokenIds, [](GenerateRequest* r, size_t n) { r->stop_token_ids.assign(n, 1); }}};
  for (const auto& [most, set] : lists) {
    EXPECT_TRUE(Check([&, &set = set](GenerateRequest* r) { set(r, 1); }).ok());
    EXPECT_TRUE(Check([&, &set = set, &most = most](GenerateRequest* r) { set(r, most); }).ok());
    const absl::Status status =
        Check([&, &set = set, &most = most](GenerateRequest* r) { set(r, most + 1); });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(std::to_string(most + 1)), std::string::npos) << status;
  }
  EXPECT_FALSE(Check([](GenerateRequest* r) { r->stop = {"x", ""}; }).ok());
  EXPECT_FALSE(Check([](GenerateRequest* r) { r->prompt.clear(); }).ok());
}

TEST(ValidateRequest, LogitBiasesHaveALimit) {
  GenerateRequest request;
  request.prompt = {1};
  for (int32_t t = 0; t < kMaxLogitBias; ++t) request.sampling.logit_bias[t] = 1.0f;
  EXPECT_TRUE(ValidateRequest(request, 10000, kContext).ok());
  request.sampling.logit_bias[kMaxLogitBias] = 1.0f;
  const absl::Status status = ValidateRequest(request, 10000, kContext);
  EXPECT_NE(status.message().find("entries of logit_bias = 4097"), std::string::npos) << status;
}

// The context holds the prompt and at least one token of an answer, if there is to be one.
TEST(ValidateRequest, ThePromptLeavesRoomForAnAnswer) {
  struct Case {
    size_t prompt;
    std::optional<int64_t> max_tokens;
    bool good;
  };
  for (const Case& c : std::vector<Case>{{3, std::nullopt, true},
                                         {3, 1, true},
                                         {3, 100, true},
                                         {4, 0, true},
                                         {4, 1, false},
                                         {4, std::nullopt, false},
                                         {5, 0, false}}) {
    const absl::Status status = Check([&](GenerateRequest* r) {
      r->prompt.assign(c.prompt, 1);
      r->max_tokens = c.max_tokens;
    });
    EXPECT_EQ(status.ok(), c.good) << c.prompt << " " << c.max_tokens.value_or(-1) << status;
  }
}

TEST(ValidateRequest, LimitsAreTheContract) {
  EXPECT_EQ(kMaxStopStrings, 64);
  EXPECT_EQ(kMaxStopBytes, 1024);
  EXPECT_EQ(kMaxStopTokenIds, 1024);
  EXPECT_EQ(kMaxTopLogprobs, 20);
  EXPECT_EQ(kMaxLogitBias, 4096);
}

}  // namespace
}  // namespace thermocline
