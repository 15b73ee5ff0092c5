// Values as C++ sees them: their weight, their depth, how floats are written.
#include "engine/text/template/value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/text/template/text_functions.h"

namespace thermocline::jinja {
namespace {

TEST(FloatRepr, IsTheShortestThatReadsBack) {
  const std::pair<double, const char*> cases[] = {{0.0, "0.0"},
                                                  {-0.0, "-0.0"},
                                                  {1.0, "1.0"},
                                                  {0.1, "0.1"},
                                                  {1e15, "1000000000000000.0"},
                                                  {9999999999999998.0, "9999999999999998.0"},
                                                  {1e16, "1e+16"},
                                                  {0.0001, "0.0001"},
                                                  {0.00001, "1e-05"},
                                                  {-1.5e-7, "-1.5e-07"},
                                                  {1e300, "1e+300"},
                                                  {INFINITY, "inf"},
                                                  {-INFINITY, "-inf"},
                                                  {NAN, "nan"},
                                                  {123.456, "123.456"},
                                                  {2.0 / 3.0, "0.6666666666666666"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(FloatRepr(value), text);
}

TEST(Value, ToJsonWritesWhatJsonHasNoWordFor) {
  EXPECT_EQ(Value(static_cast<double>(NAN)).ToJson(-1, false), "NaN");
  EXPECT_EQ(Value(static_cast<double>(INFINITY)).ToJson(-1, false), "Infinity");
  EXPECT_EQ(Value(-static_cast<double>(INFINITY)).ToJson(-1, false), "-Infinity");
  EXPECT_EQ(Value().ToJson(-1, false), "null");
  EXPECT_EQ(Value::MakeFunction(nullptr).ToJson(-1, false), "null");
}

TEST(Value, ReprQuotesAsPythonDoes) {
  const std::pair<const char*, const char*> cases[] = {{"a", "'a'"},
                                                       {"it's", "\"it's\""},
                                                       {"\"q\"", "'\"q\"'"},
                                                       {"'\"", "'\\'\"'"},
                                                       {"a\nb\tc\rd", "'a\\nb\\tc\\rd'"},
                                                       {"\\", "'\\\\'"},
                                                       {"", "''"}};
  for (const auto& [text, repr] : cases) EXPECT_EQ(Value(text).Repr(), repr);
  EXPECT_EQ(Value(Value::None{}).Repr(), "None");
  EXPECT_EQ(Value().Repr(), "");
  EXPECT_EQ(Value::MakeFunction(nullptr).Repr(), "<function>");
  EXPECT_EQ(Value::MakeUndefined("x").undefined_name(), "x");
}

TEST(Value, WeightCountsNodesAndBytes) {
  EXPECT_EQ(Value(1).weight(), 1);
  EXPECT_EQ(Value("").weight(), 1);
  EXPECT_EQ(Value(std::string(31, 'x')).weight(), 1);
  EXPECT_EQ(Value(std::string(32, 'x')).weight(), 2);
  EXPECT_EQ(Value(std::string(320, 'x')).weight(), 11);
  EXPECT_EQ(Value::MakeList({}).weight(), 1);
  const Value pair = Value::MakeList({Value(1), Value(std::string(32, 'x'))});
  EXPECT_EQ(pair.weight(), 4);
  EXPECT_EQ(Value::MakeList({pair, pair}).weight(), 9);  // shared ones count every time
  const Value dict = Value::MakeDict({{Value("k"), pair}});
  EXPECT_EQ(dict.weight(), 5);
  dict.Set(Value("m"), Value(1));
  EXPECT_EQ(dict.weight(), 6);
}

TEST(Value, DepthCountsLevelsOfContainers) {
  EXPECT_EQ(Value("a").depth(), 0);
  EXPECT_EQ(Value::MakeList({}).depth(), 1);
  EXPECT_EQ(Value::MakeList({Value::MakeList({Value(1)}), Value(2)}).depth(), 2);
  const Value dict = Value::MakeDict({});
  EXPECT_EQ(dict.depth(), 1);
  dict.Set(Value("a"), Value::MakeList({Value::MakeList({})}));
  EXPECT_EQ(dict.depth(), 3);
  const Value list = Value::MakeList({});
  EXPECT_EQ(Value::MakeFunction(nullptr, &list).depth(), 2);  // holds its object
  EXPECT_EQ(Value::MakeFunction(nullptr).depth(), 1);
}

TEST(Value, NamespacesAreKnownThroughWhateverHoldsThem) {
  const Value ns = Value::MakeNamespace({});
  EXPECT_TRUE(ns.is_namespace());
  EXPECT_TRUE(ns.holds_namespace());
  EXPECT_FALSE(Value::MakeDict({}).is_namespace());
  EXPECT_FALSE(Value::MakeDict({}).holds_namespace());
  EXPECT_TRUE(Value::MakeList({Value(1), Value::MakeDict({{Value("a"), ns}})}).holds_namespace());
  EXPECT_FALSE(Value::MakeList({Value(1)}).holds_namespace());
  EXPECT_FALSE(Value("a").holds_namespace());
  EXPECT_TRUE(Value::MakeFunction(nullptr, &ns).holds_namespace());
}

TEST(Value, MembersAreReplacedInTheirPlace) {
  const Value dict = Value::MakeDict({{Value("a"), Value(1)}, {Value("b"), Value(2)}});
  dict.Set(Value("a"), Value(3));
  dict.Set(Value("c"), Value(4));
  EXPECT_EQ(dict.Repr(), "{'a': 3, 'b': 2, 'c': 4}");
  EXPECT_EQ(dict.Get(Value("b"))->integer(), 2);
  EXPECT_EQ(dict.Get(Value("x")), nullptr);
  EXPECT_EQ(Value(1).Get(Value("x")), nullptr);
}

TEST(Value, FromJsonKeepsKindsAndOrder) {
  const auto json = nlohmann::ordered_json::parse(
      R"({"b": [1, -2, 1.5, true, null, "x"], "a": {"z": 0}, "big": 9223372036854775807})");
  EXPECT_EQ(Value::FromJson(json).Repr(),
            "{'b': [1, -2, 1.5, True, None, 'x'], 'a': {'z': 0}, 'big': 9223372036854775807}");
}

TEST(Value, TypesHaveNames) {
  const std::pair<Value, const char*> cases[] = {{Value(), "undefined"},
                                                 {Value(Value::None{}), "none"},
                                                 {Value(true), "bool"},
                                                 {Value(1), "int"},
                                                 {Value(1.0), "float"},
                                                 {Value("a"), "str"},
                                                 {Value::MakeList({}), "list"},
                                                 {Value::MakeList({}, true), "tuple"},
                                                 {Value::MakeDict({}), "dict"},
                                                 {Value::MakeNamespace({}), "namespace"},
                                                 {Value::MakeFunction(nullptr), "function"}};
  for (const auto& [value, name] : cases) EXPECT_STREQ(value.TypeName(), name);
}

TEST(Arguments, AreFoundByPlaceThenByName) {
  Arguments arguments;
  arguments.positional = {Value(1)};
  arguments.named = {{"a", Value(2)}, {"b", Value(3)}, {"b", Value(4)}};
  EXPECT_EQ(arguments.Find(0, "a")->integer(), 1);
  EXPECT_EQ(arguments.Find(1, "a")->integer(), 2);
  EXPECT_EQ(arguments.Find(9, "b")->integer(), 3);
  EXPECT_EQ(arguments.Find(1, "c"), nullptr);
}

TEST(CharacterOffsets, AreTheStartsAndTheEnd) {
  EXPECT_EQ(CharacterOffsets(""), std::vector<size_t>{0});
  EXPECT_EQ(CharacterOffsets("ab"), (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(CharacterOffsets("a\u00E4\u4E2D\U0001F600z"),
            (std::vector<size_t>{0, 1, 3, 6, 10, 11}));
}

TEST(TextFunctions, StripTakesASideAndASet) {
  EXPECT_EQ(Strip("  a  ", "", Side::kLeft), "a  ");
  EXPECT_EQ(Strip("  a  ", "", Side::kRight), "  a");
  EXPECT_EQ(Strip("  a  ", "", Side::kBoth), "a");
  EXPECT_EQ(Strip("xyaxy", "yx", Side::kBoth), "a");
  EXPECT_EQ(Strip("xx", "x", Side::kLeft), "");
  EXPECT_EQ(Strip("xx", "x", Side::kRight), "");
  EXPECT_EQ(Strip(" a ", "x", Side::kBoth), " a ");
  for (char c : std::string(" \t\n\r\f\v\x1c\x1d\x1e\x1f")) {
    const std::string blank(1, c);
    EXPECT_EQ(Strip(blank + "a" + blank, "", Side::kBoth), "a") << static_cast<int>(c);
  }
}

TEST(TextFunctions, ReplaceAllTakesACountAndFindsNothingBetweenCharacters) {
  EXPECT_EQ(ReplaceAll("banana", "a", "o", -1), "bonono");
  EXPECT_EQ(ReplaceAll("banana", "a", "o", 2), "bonona");
  EXPECT_EQ(ReplaceAll("banana", "a", "o", 0), "banana");
  EXPECT_EQ(ReplaceAll("aaa", "aa", "b", -1), "ba");
  EXPECT_EQ(ReplaceAll("abc", "", "-", -1), "-a-b-c-");
  EXPECT_EQ(ReplaceAll("abc", "", "-", 1), "-abc");
  EXPECT_EQ(ReplaceAll("abc", "", "-", 3), "-a-b-c");
  EXPECT_EQ(ReplaceAll("", "", "-", -1), "-");
  EXPECT_EQ(ReplaceAll("", "", "-", 0), "");
  EXPECT_EQ(ReplaceAll("\u00E4\u4E2D", "", "-", -1), "-\u00E4-\u4E2D-");
}

}  // namespace
}  // namespace thermocline::jinja
