// JSON without exceptions: limits, order, and what is not JSON.
#include "engine/formats/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

TEST(ParseJson, NestsUpTo256Levels) {
  const auto nested = [](size_t levels) {
    return std::string(levels, '[') + "1" + std::string(levels, ']');
  };
  EXPECT_TRUE(ParseJson(nested(kMaxJsonDepth)).ok());
  EXPECT_TRUE(ParseOrderedJson(nested(kMaxJsonDepth)).ok());
  for (const absl::Status& status : {ParseJson(nested(kMaxJsonDepth + 1)).status(),
                                     ParseOrderedJson(nested(kMaxJsonDepth + 1)).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("deeper than 256 levels"), std::string::npos) << status;
  }
}

TEST(ParseJson, WhatIsNotJsonIsRefused) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "\"\xFF\"", "\"\xC3\"",
                           "[NaN]", "'a'", "{1: 2}"}) {
    EXPECT_EQ(ParseJson(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(ParseOrderedJson(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  for (const char* text : {"null", " 1 ", "\"\xC3\xA4\"", "[]"}) {
    EXPECT_TRUE(ParseJson(text).ok()) << text;
    EXPECT_TRUE(ParseOrderedJson(text).ok()) << text;
  }
}

TEST(ParseOrderedJson, KeepsTheOrderOfKeys) {
  EXPECT_EQ(ParseOrderedJson(R"({"b": 1, "a": {"z": 2, "y": 3}})")->dump(),
            R"({"b":1,"a":{"z":2,"y":3}})");
}

TEST(ParseOrderedJson, AnObjectHasAtMost1024Keys) {
  const auto object = [](int keys) {
    std::string text = "{";
    for (int i = 0; i < keys; ++i) absl::StrAppend(&text, i > 0 ? "," : "", "\"k", i, "\":0");
    return text + "}";
  };
  EXPECT_EQ(ParseOrderedJson(object(kMaxOrderedKeys))->size(), 1024u);
  const absl::Status status = ParseOrderedJson(object(kMaxOrderedKeys + 1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("more than 1024 keys"), std::string::npos) << status;
  // Keys count for the object that they are in.
  EXPECT_TRUE(ParseOrderedJson("[" + object(1000) + "," + object(1000) + "]").ok());
  const std::string inner = object(1000);
  EXPECT_TRUE(ParseOrderedJson(absl::StrCat("{\"x\":", inner, ",", object(1000).substr(1))).ok());
  EXPECT_FALSE(ParseOrderedJson(absl::StrCat("{\"x\":", inner, ",", object(1024).substr(1))).ok());
  // Objects without order have no such limit.
  EXPECT_EQ(ParseJson(object(5000))->size(), 5000u);
}

TEST(ParseJsonOfUniqueKeys, AKeyIsThereOnceInItsObject) {
  EXPECT_TRUE(ParseJsonOfUniqueKeys(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})").ok());
  for (const char* text : {R"({"a": 1, "a": 1})", R"({"x": {"a": 1, "b": 2, "a": 3}})",
                           R"({"a": {"b": 1}, "c": 1, "a": 2})"}) {
    const absl::Status status = ParseJsonOfUniqueKeys(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("\"a\" is there twice"), std::string::npos) << status;
  }
  // Where nothing is said, the last one counts, as everywhere.
  EXPECT_EQ(ParseJson(R"({"a": 1, "a": 2})")->at("a"), 2);
}

}  // namespace
}  // namespace thermocline
