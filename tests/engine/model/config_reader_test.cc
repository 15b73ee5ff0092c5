// ConfigReader: the same questions to config.json and to GGUF metadata.
#include "engine/model/config_reader.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/config.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

using nlohmann::json;

void ExpectError(const Configured& configured, const std::string& part) {
  const absl::Status& status = const_cast<Configured&>(configured)->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
  EXPECT_NE(status.message().find(part), std::string::npos) << status;
}

TEST(ConfigReader, TheArchitectureIsTheFilesOwnName) {
  EXPECT_EQ(Configured(json{{"model_type", "m"}})->architecture(), "m");
  EXPECT_EQ(Configured(json::object())->architecture(), "");
  EXPECT_EQ(Configured(Metadata{{"general.architecture", std::string("g")}})->architecture(), "g");
  EXPECT_EQ(Configured(Metadata{{"general.architecture", int64_t{3}}})->architecture(), "");
  EXPECT_FALSE(Configured(json::object())->is_gguf());
  EXPECT_TRUE(Configured(Metadata{})->is_gguf());
}

TEST(ConfigReader, PathsDescendAndTheFirstAlternativeThatIsThereCounts) {
  Configured c(json{{"a", {{"b", {{"c", 3}}}}}, {"x", 1}, {"z", nullptr}, {"y", 2}});
  EXPECT_EQ(c->IntOr({"a.b.c", ""}, 0, 9, 0), 3);
  EXPECT_EQ(c->IntOr({"nope|x|y", ""}, 0, 9, 0), 1);
  EXPECT_EQ(c->IntOr({"y|x", ""}, 0, 9, 0), 2);
  EXPECT_EQ(c->IntOr({"z|y", ""}, 0, 9, 0), 2);    // null is not there
  EXPECT_EQ(c->IntOr({"a.b|y", ""}, 0, 9, 0), 2);  // nor is an object a value
  for (const char* path : {"a.c", "x.b", "a.b.c.d", "", "z"})
    EXPECT_EQ(c->IntOr({path, ""}, 0, 9, 7), 7) << path;
  EXPECT_TRUE(c->status().ok());
}

TEST(ConfigReader, HasIsTrueForDictionariesThatHoldSomething) {
  Configured c(json{{"d", {{"k", 1}}}, {"e", json::object()}, {"n", nullptr}, {"v", 0}});
  EXPECT_TRUE(c->Has({"d", ""}));
  EXPECT_TRUE(c->Has({"v", ""}));
  EXPECT_FALSE(c->Has({"e", ""}));
  EXPECT_FALSE(c->Has({"n", ""}));
  EXPECT_FALSE(c->Has({"missing", ""}));
  Configured g(Metadata{{"x.v", int64_t{0}}});
  EXPECT_TRUE(g->Has({"", "v"}));
  EXPECT_FALSE(g->Has({"v", "w"}));
}

TEST(ConfigReader, GgufKeysHaveTheArchitecturesPrefix) {
  Configured g(Metadata{{"x.a", int64_t{1}}, {"a", int64_t{2}}, {"y.a", int64_t{3}}});
  EXPECT_EQ(g->IntOr({"a", "a"}, 0, 9, 0), 1);
  EXPECT_EQ(g->IntOr({"a", ""}, 0, 9, 7), 7);  // no key of this format: the default
}

TEST(ConfigReader, WholeNumbersLieBetweenTheirBounds) {
  for (const auto& [value, right] :
       {std::pair{1, false}, std::pair{2, true}, std::pair{5, true}, std::pair{6, false}}) {
    Configured c(json{{"n", value}});
    EXPECT_EQ(c->IntOr({"n", "k"}, 2, 5, 3), right ? value : 2);
    EXPECT_EQ(c->status().ok(), right) << value;
    if (!right) ExpectError(c, "n = " + std::to_string(value) + ", but 2 to 5 are allowed");
    Configured g(Metadata{{"x.k", int64_t{value}}});
    EXPECT_EQ(g->Int({"n", "k"}, 2, 5), right ? value : 2);
    if (!right) ExpectError(g, "x.k = " + std::to_string(value));
  }
  // Of the 64-bit type; a list counts as its largest.
  EXPECT_EQ(Configured(Metadata{{"x.k", uint64_t{4}}})->Int({"", "k"}, 0, 9), 4);
  Configured huge(Metadata{{"x.k", ~uint64_t{0}}});
  (void)huge->Int({"", "k"}, 0, 9);
  ExpectError(huge, "x.k = 9223372036854775807");
  EXPECT_EQ(Configured(json{{"n", {3, 7, 5}}})->Int({"n", ""}, 0, 9), 7);
  EXPECT_EQ(Configured(Metadata{{"x.k", std::vector<int64_t>{0, 8}}})->Int({"", "k"}, 0, 9), 8);
  for (const json& wrong : {json(1.5), json("1"), json(true), json(json::array())}) {
    Configured c(json{{"n", wrong}});
    EXPECT_EQ(c->IntOr({"n", ""}, 2, 5, 3), 2) << wrong;
    ExpectError(c, "n is not a whole number");
  }
}

TEST(ConfigReader, WhatIsRequiredAndMissingIsNamed) {
  Configured c(json::object());
  EXPECT_EQ(c->Int({"size", "s"}, 4, 9), 4);
  ExpectError(c, "the model's configuration lacks size");
  (void)c->Int({"other", "o"}, 0, 9);
  ExpectError(c, "lacks size");  // the first error stays
  Configured g(Metadata{});
  (void)g->Int({"size", "s"}, 4, 9);
  ExpectError(g, "lacks x.s");
  Configured f(json::object());
  EXPECT_EQ(f->Float({"eps", "e"}), 1.0);
  ExpectError(f, "lacks eps");
}

TEST(ConfigReader, FloatsArePositiveAndFiniteUnlessZeroIsTheDefault) {
  EXPECT_EQ(Configured(json{{"f", 0.25}})->Float({"f", ""}), 0.25);
  EXPECT_EQ(Configured(json{{"f", 3}})->FloatOr({"f", ""}, 1.0), 3.0);
  EXPECT_EQ(Configured(json{{"f", 1e12}})->FloatOr({"f", ""}, 1.0), 1e12);
  EXPECT_EQ(Configured(json{{"f", 0.0}})->FloatOr({"f", ""}, 0.0), 0.0);
  EXPECT_EQ(Configured(json{{"f", 0}})->FloatOr({"f", ""}, 0.0), 0.0);
  EXPECT_EQ(Configured(json::object())->FloatOr({"f", ""}, -2.0), -2.0);
  EXPECT_EQ(Configured(Metadata{{"x.f", 0.5}})->Float({"", "f"}), 0.5);
  for (const auto& [value, fallback] :
       {std::pair{0.0, 1.0}, std::pair{-1.0, 0.0}, std::pair{-1.0, 1.0}, std::pair{1.1e12, 1.0}}) {
    Configured c(json{{"f", value}});
    EXPECT_EQ(c->FloatOr({"f", ""}, fallback), 1.0);
    ExpectError(c, "but a positive number is expected");
  }
  for (double value : {static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    Configured g(Metadata{{"x.f", value}});
    (void)g->FloatOr({"", "f"}, 0.0);
    ExpectError(g, "x.f = ");
  }
  Configured text(json{{"f", "1"}});
  EXPECT_EQ(text->FloatOr({"f", ""}, 5.0), 1.0);
  ExpectError(text, "f is not a number");
}

TEST(ConfigReader, FlagsTextsAndLists) {
  Configured c(json{{"t", true}, {"s", "text"}, {"l", {1, 2}}, {"w", {"a", "b"}}, {"m", {1, "a"}}});
  EXPECT_EQ(c->BoolOr({"t", ""}, false), true);
  EXPECT_EQ(c->BoolOr({"no", ""}, true), true);
  EXPECT_EQ(c->StringOr({"s", ""}, "d"), "text");
  EXPECT_EQ(c->StringOr({"no", ""}, "d"), "d");
  EXPECT_EQ(c->IntsOr({"l", ""}, {}), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(c->IntsOr({"no", ""}, {7}), std::vector<int64_t>{7});
  EXPECT_EQ(c->StringsOr({"w", ""}, {}), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(c->StringsOr({"no", ""}, {"d"}), std::vector<std::string>{"d"});
  EXPECT_EQ(c->IntsOr({"m", ""}, {7}), std::vector<int64_t>{7});  // a mixed list is no value
  EXPECT_TRUE(c->status().ok());
  const auto wrong = [&](const auto& read, const char* part) {
    Configured other(json{{"v", "text"}, {"l", {1}}, {"n", 1}});
    read(other.get());
    ExpectError(other, part);
  };
  wrong([](ConfigReader* r) { EXPECT_TRUE(r->BoolOr({"v", ""}, true)); }, "v is not true or false");
  wrong([](ConfigReader* r) { EXPECT_EQ(r->StringOr({"n", ""}, "d"), "d"); }, "n is not a string");
  wrong(
      [](ConfigReader* r) {
        (void)r->IntsOr({"v", ""}, {});
      },
      "v is not a list of whole numbers");
  wrong([](ConfigReader* r) { (void)r->StringsOr({"l", ""}, {}); }, "l is not a list of strings");
}

TEST(ConfigReader, WhatIsReadFromAFolderIsNotedForGguf) {
  Configured c(json{{"i", 3}, {"f", 0.5}, {"b", true}, {"s", "t"}, {"l", {1, 2}}});
  (void)c->Int({"i", "gi"}, 0, 9);
  (void)c->Float({"f", "gf"});
  (void)c->BoolOr({"b", "gb"}, false);
  (void)c->StringOr({"s", "gs"}, "");
  (void)c->IntsOr({"l", "gl"}, {});
  (void)c->IntOr({"i", ""}, 0, 9, 0);          // no key there
  (void)c->IntOr({"missing", "gm"}, 0, 9, 4);  // a default is not noted
  c->Record("extra", 1.5);
  c->RecordTensor("t", {1, 2});
  EXPECT_EQ(c->recorded(), (std::map<std::string, MetadataValue>{{"gi", int64_t{3}},
                                                                 {"gf", 0.5},
                                                                 {"gb", true},
                                                                 {"gs", std::string("t")},
                                                                 {"gl", std::vector<int64_t>{1, 2}},
                                                                 {"extra", 1.5}}));
  EXPECT_EQ(c->recorded_tensors().at("t"), (std::vector<double>{1, 2}));
  Configured g(Metadata{{"x.k", int64_t{1}}});
  (void)g->Int({"", "k"}, 0, 9);
  g->Record("extra", 1.5);
  g->RecordTensor("t", {1});
  EXPECT_TRUE(g->recorded().empty());
  EXPECT_TRUE(g->recorded_tensors().empty());
}

TEST(ConfigReader, ListsOfPositiveNumbersAreTensorsInGguf) {
  Configured c(json{{"f", {1, 2.5}}, {"whole", {3, 4}}, {"zero", {0.0, 1.0}}, {"text", "x"}});
  EXPECT_EQ(c->TensorOr({"f", "t.f"}, 2), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(c->TensorOr({"whole", "t.w"}, 2), (std::vector<double>{3, 4}));
  EXPECT_TRUE(c->TensorOr({"missing", "t.m"}, 2).empty());
  EXPECT_TRUE(c->status().ok());
  EXPECT_EQ(c->recorded_tensors().size(), 2u);
  EXPECT_EQ(c->recorded_tensors().at("t.f"), (std::vector<double>{1, 2.5}));
  EXPECT_EQ(c->TensorOr({"zero", ""}, 2), (std::vector<double>{1, 1}));
  ExpectError(c, "zero holds 0, but positive numbers are expected");
  for (const char* key : {"f", "text"}) {
    Configured wrong(json{{"f", {1, 2}}, {"text", "x"}});
    EXPECT_EQ(wrong->TensorOr({key, ""}, 3), (std::vector<double>{1, 1, 1}));
    ExpectError(wrong, "should be a list of 3 numbers");
  }
}

TEST(ConfigReader, TensorsOfGgufAreReadByTheirFullName) {
  const TemporaryFile file("config.gguf");
  GgufBytes gguf;
  gguf.String("general.architecture", "x").Tensor("good", {2}, 0, 0).Tensor("half", {2}, 1, 32);
  gguf.Tensor("negative", {2}, 0, 64);
  std::string data = RawList<float>({0.5f, 2});
  data.resize(64, '\0');
  WriteBytes(file.path(), gguf.File(data + RawList<float>({-1, 2})));
  const auto checkpoint = Checkpoint::Open(file.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ConfigReader reader(**checkpoint);
  EXPECT_EQ(reader.TensorOr({"", "good"}, 2), (std::vector<double>{0.5, 2}));
  EXPECT_TRUE(reader.TensorOr({"", "missing"}, 2).empty());
  EXPECT_TRUE(reader.status().ok());
  for (const auto& [name, size, part] : {std::tuple{"good", 3, "tensor \"good\" should hold 3 F32"},
                                         std::tuple{"half", 2, "tensor \"half\" should hold 2 F32"},
                                         std::tuple{"negative", 2, "negative holds -1"}}) {
    ConfigReader other(**checkpoint);
    const std::vector<double> values = other.TensorOr({"", name}, size);
    EXPECT_EQ(values[0], 1.0);
    EXPECT_NE(other.status().message().find(part), std::string::npos) << other.status();
  }
}

}  // namespace
}  // namespace thermocline
