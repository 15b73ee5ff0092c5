// Budgets by their exact limits, and the limits on nesting.
#include "absl/strings/str_join.h"
#include "tests/support/render.h"

namespace thermocline {
namespace {

void ExpectEnds(const std::string& source, const jinja::Budget& budget, const std::string& part) {
  const absl::Status status = RenderTemplate(source, "{}", budget).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << source;
  EXPECT_NE(status.message().find(part), std::string::npos) << status;
}
void ExpectFits(const std::string& source, const jinja::Budget& budget) {
  const auto text = RenderTemplate(source, "{}", budget);
  EXPECT_TRUE(text.ok()) << source << ": " << text.status();
}

TEST(TemplateBudget, OutputHasSoManyBytes) {
  ExpectFits("ab{{ 'c' }}", {.output_bytes = 3});
  ExpectEnds("ab{{ 'cd' }}", {.output_bytes = 3}, "writes too much");
  ExpectFits("{% for i in range(3) %}x{% endfor %}", {.output_bytes = 3});
  ExpectEnds("{% for i in range(4) %}x{% endfor %}", {.output_bytes = 3}, "writes too much");
  // What is captured counts by itself.
  ExpectFits("{% set t %}abc{% endset %}abc", {.output_bytes = 3});
}

TEST(TemplateBudget, MemoryIsChargedBeforeItIsMade) {
  ExpectFits("{{ ('a' * 1000) is string }}", {.memory_bytes = 1000});
  ExpectEnds("{{ ('a' * 1001) is string }}", {.memory_bytes = 1000}, "too much memory");
  ExpectEnds("{{ 'a' * 9223372036854775807 }}", {}, "too much memory");
  ExpectFits("{{ '' * 1000 }}", {.memory_bytes = 1000});
  ExpectEnds("{{ '' * 1001 }}", {.memory_bytes = 1000}, "too much memory");
  ExpectFits("{{ 'ab' ~ 'cd' }}", {.memory_bytes = 4});
  ExpectEnds("{{ 'ab' ~ 'cde' }}", {.memory_bytes = 4}, "too much memory");
  ExpectFits("{{ 'ab' + 'cd' }}", {.memory_bytes = 4});
  ExpectEnds("{{ 'ab' + 'cde' }}", {.memory_bytes = 4}, "too much memory");
  ExpectFits("{{ 'abcd'.strip() }}", {.memory_bytes = 4});
  ExpectEnds("{{ 'abcde'.strip() }}", {.memory_bytes = 4}, "too much memory");
  ExpectFits("{% set x %}abcd{% endset %}", {.memory_bytes = 4});
  ExpectEnds("{% set x %}abcde{% endset %}", {.memory_bytes = 4}, "too much memory");
}

TEST(TemplateBudget, StepsAreWhatIsEvaluatedAndTouched) {
  ExpectFits("{{ 1 }}", {.steps = 10});
  ExpectEnds("{{ 1 }}", {.steps = 0}, "too many steps");
  ExpectEnds("{% for i in range(1000) %}{% endfor %}", {.steps = 1000}, "too many steps");
  ExpectFits("{% for i in range(1000) %}{% endfor %}", {.steps = 20000});
  ExpectEnds("{{ range(1000) | sort | length }}", {.steps = 10000}, "too many steps");
}

TEST(TemplateBudget, CallsAndLoopsNestSoDeep) {
  const std::string down = "{% macro f(n) %}{% if n > 1 %}{{ f(n - 1) }}{% endif %}{% endmacro %}";
  ExpectFits(down + "{{ f(5) }}", {.call_depth = 5});
  ExpectEnds(down + "{{ f(6) }}", {.call_depth = 5}, "calls too deeply");
  std::string loops = "x";
  for (int i = 0; i < 5; ++i) loops = "{% for i in [1] %}" + loops + "{% endfor %}";
  ExpectFits(loops, {.call_depth = 5});
  ExpectEnds(loops, {.call_depth = 4}, "calls too deeply");
  ExpectFits(loops + loops + down + "{{ f(5) }}", {.call_depth = 5});  // one after the other
  ExpectFits(down + "{{ f(64) }}", {});                                // where nobody says
  ExpectEnds(down + "{{ f(65) }}", {}, "calls too deeply");
}

// A template cannot exhaust the stack: expressions in progress are counted across macros.
TEST(TemplateBudget, ExpressionsInProgressAreAtMost2000) {
  // Of each of 64 calls as many as the sum has terms, and a few for the call.
  const auto source = [](int terms) {
    std::string sum = "f(n - 1)";
    for (int i = 1; i < terms; ++i) sum += " + 1";
    return "{% macro f(n) %}{% if n > 0 %}{{ " + sum + " }}{% endif %}{% endmacro %}{{ f(40) }}";
  };
  const auto needed = [&](int terms) {
    const absl::Status status = RenderTemplate(source(terms), "{}").status();
    return status.message().find("nests expressions too deeply") != std::string::npos;
  };
  int fits = 1;
  while (fits < 100 && !needed(fits + 1)) ++fits;
  // 40 * (terms + what the call needs) <= 2000.
  EXPECT_GE(fits, 40);
  EXPECT_LE(fits, 49);
}

TEST(TemplateBudget, TimeIsLookedAtToo) {
  ExpectEnds("{{ 1 }}", {.seconds = -1.0}, "takes too long");
  ExpectFits("{{ 1 }}", {.seconds = 1000.0});
}

TEST(TemplateLimits, ValuesNest400LevelsDeep) {
  const std::string grow =
      "{% set ns = namespace(x=[]) %}{% for i in range(N) %}{% set ns.x = [ns.x] %}{% endfor %}";
  const auto source = [&](const char* times) {
    std::string text = grow;
    return text.replace(text.find('N'), 1, times);
  };
  // One level to begin with.
  ExpectRendered({{source("399"), ""}});
  ExpectTemplateErrors({{source("400"), "nested deeper than 400 levels"}});
}

TEST(TemplateLimits, ExpressionsAndBlocksNestSoDeep) {
  const auto repeat = [](const std::string& text, int times) {
    return absl::StrJoin(std::vector<std::string>(static_cast<size_t>(times), text), "");
  };
  const auto parenthesised = [&](int levels) {
    return "{{ " + repeat("(", levels) + "1" + repeat(")", levels) + " }}";
  };
  EXPECT_TRUE(RenderTemplate(parenthesised(65)).ok());  // three levels of the parser each
  EXPECT_FALSE(RenderTemplate(parenthesised(66)).ok());
  const absl::Status deep = RenderTemplate(parenthesised(5000)).status();
  EXPECT_NE(deep.message().find("nested deeper than"), std::string::npos) << deep;
  const auto blocks = [&](int levels) {
    return repeat("{% if 1 %}", levels) + "x" + repeat("{% endif %}", levels);
  };
  EXPECT_TRUE(RenderTemplate(blocks(98)).ok());  // two each
  EXPECT_FALSE(RenderTemplate(blocks(99)).ok());
  const absl::Status many = RenderTemplate(blocks(5000)).status();
  EXPECT_NE(many.message().find("nested deeper than"), std::string::npos) << many;
  const auto sum = [&](int terms) { return "{{ 1" + repeat(" + 1", terms) + " }}"; };
  EXPECT_EQ(*RenderTemplate(sum(999)), "1000");
  EXPECT_FALSE(RenderTemplate(sum(1000)).ok());
  const absl::Status high = RenderTemplate(sum(5000)).status();
  EXPECT_NE(high.message().find("levels"), std::string::npos) << high;
}

TEST(ChatTemplateLimits, ATemplateHasAtMostOneMebibyte) {
  EXPECT_TRUE(ChatTemplate::Create(std::string(1 << 20, 'x')).ok());
  const absl::Status status = ChatTemplate::Create(std::string((1 << 20) + 1, 'x')).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("1048577 bytes"), std::string::npos) << status;
}

TEST(ChatTemplateInputs, AreAnObjectWhoseMembersAreNames) {
  EXPECT_EQ(*RenderTemplate("{{ a }}{{ b.c[1] }}", R"({"a": 1, "b": {"c": [2, 3]}})"), "13");
  for (const char* inputs : {"[]", "3", "null"}) {
    EXPECT_EQ(RenderTemplate("x", inputs).status().code(), absl::StatusCode::kInvalidArgument);
  }
  // Tools and documents are none unless given, special tokens what the tokenizer says.
  EXPECT_EQ(
      *RenderTemplate("{{ tools }}{{ documents }}{{ bos_token }}{{ eos_token }}{{ pad_token }}"
                      "{{ unk_token }}"),
      "NoneNone<s></s><pad><unk>");
  EXPECT_EQ(*RenderTemplate("{{ tools }}{{ bos_token }}", R"({"tools": [1], "bos_token": "B"})"),
            "[1]B");
  // Numbers keep their kind.
  EXPECT_EQ(*RenderTemplate("{{ x }}", R"({"x": [1, -1, 1.0, true, null, "a", {}, 1e2]})"),
            "[1, -1, 1.0, True, None, 'a', {}, 100.0]");
}

}  // namespace
}  // namespace thermocline
