// The text side: templates, streams of UTF-8, sampling.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"
#include "engine/sampler.h"
#include "engine/text/template/chat_template.h"
#include "engine/text/text_stream.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

TEST(TextStream, HoldsBackIncompleteCharacters) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("a\xC3"), "a");
  EXPECT_EQ(stream.Append("\xA4z"), "\xC3\xA4z");
  EXPECT_EQ(stream.Append("\xF0\x9F\x98"), "");
  EXPECT_EQ(stream.Finish(), "\xEF\xBF\xBD");
}

TEST(TextStream, ReplacesIllFormedBytes) {
  EXPECT_EQ(ToValidUtf8("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(ToValidUtf8("\xE2\x82"), "\xEF\xBF\xBD");
  EXPECT_EQ(ToValidUtf8("\xF4\x90\x80\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(TextStream, StopStringsMayStraddleTokensAndAreNotShown) {
  TextStream stream({"STOP", "###"});
  EXPECT_EQ(stream.Append("one S"), "one ");
  EXPECT_EQ(stream.Append("TO"), "");
  EXPECT_EQ(stream.Append("R S"), "STOR ");
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Append("TOP and more"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.matched(), "STOP");
}

TEST(TextStream, TheEarliestStopWins) {
  TextStream stream({"zz", "y"});
  EXPECT_EQ(stream.Append("ayzz"), "a");
  EXPECT_EQ(stream.matched(), "y");
}

TEST(Sampler, GreedyTakesTheLowestOfEqualsAndIgnoresNan) {
  SamplingParams params;
  params.temperature = 0.0f;
  EXPECT_EQ(SampleToken(std::vector<float>{1, 5, 5, 2}, params, {}, 0), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{NAN, 1, NAN, 2}, params, {}, 0), 3);
}

TEST(Sampler, FiltersLeaveOnlyTheLikeliest) {
  const std::vector<float> logits = {0.0f, 3.0f, 2.9f, -1.0f};
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SamplingParams params;
    params.seed = seed;
    params.top_k = 1;
    EXPECT_EQ(SampleToken(logits, params, {}, 0), 1);
    params.top_k = 0;
    params.top_p = 0.6f;
    EXPECT_GE(SampleToken(logits, params, {}, 0), 1);
    EXPECT_LE(SampleToken(logits, params, {}, 0), 2);
    params.top_p = 1.0f;
    params.min_p = 0.5f;
    EXPECT_NE(SampleToken(logits, params, {}, 0), 0);
  }
}

TEST(Sampler, FollowsTheDistributionAndTheSeedAlone) {
  const std::vector<float> logits = {std::log(0.2f), std::log(0.5f), std::log(0.3f)};
  int counts[3] = {};
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    SamplingParams params;
    params.seed = seed;
    const int32_t token = SampleToken(logits, params, std::vector<int32_t>{1, 2}, 2);
    EXPECT_EQ(token, SampleToken(logits, params, std::vector<int32_t>{1, 2}, 2));
    ++counts[token];
  }
  EXPECT_NEAR(counts[0] / 20000.0, 0.2, 0.02);
  EXPECT_NEAR(counts[1] / 20000.0, 0.5, 0.02);
}

TEST(Sampler, ExtremeParametersStillGiveALikelyToken) {
  const std::vector<float> logits = {1.0f, 9.0f, 8.0f, -3.0f};
  SamplingParams params;
  params.temperature = 1e-38f;
  EXPECT_EQ(SampleToken(logits, params, {}, 0), 1);
  params.temperature = 1e-4f;
  EXPECT_EQ(SampleToken(logits, params, {}, 0), 1);
  params.temperature = 1.0f;
  params.repetition_penalty = 1e-38f;
  EXPECT_EQ(SampleToken(logits, params, std::vector<int32_t>{2}, 1), 2);
}

TEST(Sampler, PenaltiesAndBiasMoveTheChoice) {
  SamplingParams params;
  params.temperature = 0.0f;
  const std::vector<float> logits = {2.0f, 1.9f, 0.0f};
  params.repetition_penalty = 2.0f;
  EXPECT_EQ(SampleToken(logits, params, std::vector<int32_t>{0}, 1), 1);  // the prompt counts
  params.repetition_penalty = 1.0f;
  params.presence_penalty = 1.0f;
  EXPECT_EQ(SampleToken(logits, params, std::vector<int32_t>{0}, 1), 0);  // only the output counts
  EXPECT_EQ(SampleToken(logits, params, std::vector<int32_t>{2, 0}, 1), 1);
  params.presence_penalty = 0.0f;
  params.logit_bias[2] = 50.0f;
  EXPECT_EQ(SampleToken(logits, params, {}, 0), 2);
}

TEST(Sampler, LogprobsSumToOneAndTopIsSorted) {
  const std::vector<float> logits = {1.0f, 2.0f, 3.0f};
  double total = 0.0;
  for (int32_t t = 0; t < 3; ++t) total += std::exp(LogprobOf(logits, t));
  EXPECT_NEAR(total, 1.0, 1e-6);
  const OutputToken token = WithLogprobs(logits, 0, 2);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].token, 2);
  EXPECT_EQ(token.top[1].token, 1);
}

TEST(ValidateRequest, NamesFieldValueAndWhatIsAllowed) {
  GenerateRequest good;
  good.prompt = {1, 2};
  EXPECT_TRUE(ValidateRequest(good, 10, 4).ok());
  const auto expect_error = [&](auto change, const char* part) {
    GenerateRequest request = good;
    change(&request);
    const absl::Status status = ValidateRequest(request, 10, 4);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  };
  expect_error([](GenerateRequest* r) { r->prompt.clear(); }, "empty");
  expect_error([](GenerateRequest* r) { r->prompt = {10}; }, "vocabulary has 10");
  expect_error([](GenerateRequest* r) { r->prompt = {-1}; }, "token -1");
  expect_error([](GenerateRequest* r) { r->prompt = {1, 1, 1, 1}; }, "the context holds 4");
  expect_error([](GenerateRequest* r) { r->max_tokens = -1; }, "max_tokens = -1");
  expect_error([](GenerateRequest* r) { r->sampling.temperature = NAN; }, "temperature = nan");
  expect_error([](GenerateRequest* r) { r->sampling.temperature = 1e38f; }, "0 to 100");
  expect_error([](GenerateRequest* r) { r->sampling.top_p = 0.0f; }, "top_p = 0");
  expect_error([](GenerateRequest* r) { r->sampling.min_p = 2.0f; }, "min_p = 2");
  expect_error([](GenerateRequest* r) { r->sampling.top_k = -5; }, "top_k = -5");
  expect_error([](GenerateRequest* r) { r->sampling.repetition_penalty = 0.0f; },
               "repetition_penalty");
  expect_error([](GenerateRequest* r) { r->sampling.presence_penalty = 3.0f; }, "presence_penalty");
  expect_error([](GenerateRequest* r) { r->sampling.frequency_penalty = -INFINITY; },
               "frequency_penalty");
  expect_error([](GenerateRequest* r) { r->sampling.logit_bias[10] = 1.0f; },
               "logit_bias names token 10");
  expect_error([](GenerateRequest* r) { r->stop = {""}; }, "stop string");
  expect_error([](GenerateRequest* r) { r->stop.assign(1000, "x"); }, "1000");
  expect_error([](GenerateRequest* r) { r->logprobs = 21; }, "0 to 20");
  good.prompt = {1, 1, 1, 1};
  good.max_tokens = 0;
  EXPECT_TRUE(ValidateRequest(good, 10, 4).ok());  // scoring may fill the context
}

absl::StatusOr<std::string> Render(const std::string& source, const std::string& inputs = "{}",
                                   jinja::Budget budget = {}) {
  const auto chat = ChatTemplate::Create(source);
  if (!chat.ok()) return chat.status();
  return (*chat)->Render(*ParseOrderedJson(inputs), SpecialTokenTexts(nullptr), budget);
}

TEST(ChatTemplate, EvaluatesTheLanguage) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ 1 + 2 * 3 }}", "7"},
      {"{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }}", "3 -4 2 3.5 1024"},
      {"{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue"},
      {"{{ [1, 'x', 2.0, {'k': none}] }}", "[1, 'x', 2.0, {'k': None}]"},
      {"{{ 'b' in 'abc' }} {{ 3 not in [1, 2] }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }}",
       "True True True False"},
      {"{{ x is defined }} {{ x is none }} {{ none is none }} {{ 3 is odd }} {{ 4 is "
       "divisibleby(2) }}",
       "False False True True True"},
      {"{{ 'yes' if 0 else 'no' }}", "no"},
      {"{% for i in range(3) %}{{ loop.index }}{{ '' if loop.last else ',' }}{% endfor %}",
       "1,2,3"},
      {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;"},
      {"{% for i in [] %}x{% else %}empty{% endfor %}", "empty"},
      {"{% for i in range(9) if i % 2 %}{% if i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
       "135"},
      {"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor "
       "%}{{ ns.n }}",
       "6"},
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"},
      {"{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f('x', b='y') }}", "1Bxy"},
      {"{% set t %}hi {{ 1 }}{% endset %}{{ t | upper }}", "HI 1"},
      {"{{ 'abcdef'[1:4] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][-1] }} {{ 'h\xC3\xA4' | length }}",
       "bcd cba 3 2"},
      {"{{ {'b': [1, true], 'a': 'x\"'} | tojson }}", "{\"b\": [1, true], \"a\": \"x\\\"\"}"},
      {"{{ [{'n': 1}, {'n': 2}] | map(attribute='n') | list }}", "[1, 2]"},
      {"{{ [{'r': 'a'}, {'r': 'b'}] | selectattr('r', 'equalto', 'b') | list | length }}", "1"},
      {"{{ ' x ' | trim }}|{{ 'a,b'.split(',') | join('-') }}|{{ 'x'.startswith('x') }}",
       "x|a-b|True"},
      {"{%- if true -%}  x  {%- endif -%}", "x"},
      {"a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"},
      {"{# gone #}\nx{% raw %}{{ y }}{% endraw %}", "x{{ y }}"},
      {"{{ '%s-%d' % ('a', 3) }} {{ '{}' }}", "a-3 {}"},
      {"{{ bos_token }}{{ undefined_thing }}", "<s>"},
  };
  for (const auto& [source, expected] : cases) {
    const auto text = Render(source);
    ASSERT_TRUE(text.ok()) << source << ": " << text.status();
    EXPECT_EQ(*text, expected) << source;
  }
}

TEST(ChatTemplate, ErrorsAreStatuses) {
  for (const char* source :
       {"{{ raise_exception('no') }}", "{{ x.y }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ none() }}",
        "{{ [1] | nope }}", "{{ 1 is nope }}", "{{ 9223372036854775807 + 1 }}", "{{ f(1) }}"}) {
    EXPECT_EQ(Render(source).status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
  for (const char* source : {"{{ 1", "{% if %}{% endif %}", "{% for x in %}", "{% endif %}",
                             "{% if x %}", "{{ 'abc }}", "{{ 1 + }}", "{% macro %}", "{{ [1, }}",
                             "{# open", "{{ 99999999999999999999 }}", "{% unknown %}"}) {
    const absl::Status status = Render(source).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_NE(status.message().find("line"), std::string::npos) << status;
  }
  EXPECT_EQ(Render("{{ raise_exception('roles must alternate') }}").status().message(),
            "roles must alternate");
}

TEST(ChatTemplate, BudgetsEndWhatWouldNot) {
  const char* const hungry[] = {
      "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
      "{{ 'x' * 9999999999 }}",
      "{{ range(9999999999) }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ "
      "ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}",
      "{{ 2 ** 999999999999 }}"};
  for (const char* source : hungry) EXPECT_FALSE(Render(source).ok()) << source;
  EXPECT_FALSE(Render("{% set ns = namespace(x=1) %}{% set ns.me = ns %}").ok());
  EXPECT_FALSE(Render("{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = "
                      "[ns.x] %}{% endfor %}")
                   .ok());
  std::string deep(5000, '('), chain = "{{ 1", nots = "{{ ";
  for (int i = 0; i < 100000; ++i) chain += " + 1";
  for (int i = 0; i < 5000; ++i) nots += "not ";
  EXPECT_FALSE(Render("{{ " + deep + " }}").ok());
  EXPECT_FALSE(Render(chain + " }}").ok());
  EXPECT_FALSE(Render(nots + "1 }}").ok());

  // Structures that share their parts look small and are not.
  std::string doubling = "{% set a = [1] %}";
  for (int i = 0; i < 40; ++i) doubling += "{% set a = [a, a] %}";
  for (const char* use : {"{{ a }}", "{{ a | tojson }}", "{{ a ~ '' }}", "{{ a == [a] }}",
                          "{{ [a] | unique | list }}"}) {
    EXPECT_FALSE(Render(doubling + use).ok()) << use;
  }
  // Macros and long expressions together.
  std::string wide = "{% macro m() %}{{ m()";
  for (int i = 0; i < 900; ++i) wide += " + ''";
  EXPECT_FALSE(Render(wide + " }}{% endmacro %}{{ m() }}").ok());
  std::string ifs = "{{ 1";
  for (int i = 0; i < 100000; ++i) ifs += " if 1";
  EXPECT_FALSE(Render(ifs + " }}").ok());
  // Methods hold their object.
  EXPECT_FALSE(Render("{% set ns = namespace(f=0) %}{% for i in range(5000) %}{% set ns.f = "
                      "[ns.f].count %}{% endfor %}")
                   .ok());
  EXPECT_FALSE(Render("{% set ns = namespace(s=1) %}{% set ns.f = ns.get %}").ok());
  EXPECT_FALSE(Render("{% filter upper[:] %}x{% endfilter %}").ok());
  std::string raws;
  for (int i = 0; i < 50000; ++i) raws += "{% raw %}";
  EXPECT_FALSE(Render(raws).ok());
  EXPECT_TRUE(Render("{% macro kill() %}{% set ns.__call__ = 0 %}{% endmacro %}{% macro "
                     "m(a=kill(), b=1) %}{{ b }}{% endmacro %}"
                     "{% set ns = namespace(__call__=m) %}{% set m = 0 %}{{ ns() }}")
                  .ok());
  EXPECT_TRUE(Render("{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% if s %}{% endif "
                     "%}{% endfor %}")
                  .ok());
}

TEST(ChatTemplate, TheDemoModelsTemplateIsReproduced) {
  const std::string base =
      std::string(THERMOCLINE_SOURCE_DIR) + "/tests/data/golden/templates/SmolLM2-135M-Instruct";
  const auto checkpoint = Checkpoint::Open(DemoPath());
  const auto tokenizer = TokenizerOf(**checkpoint);
  const auto chat = ChatTemplate::Create((*tokenizer)->chat_template());
  ASSERT_TRUE(chat.ok()) << chat.status();
  int count = 0;
  for (const auto& line : ReadLines(base + ".jsonl")) {
    const auto text = (*chat)->Render(line["input"], SpecialTokenTexts(nullptr));
    if (line.contains("text")) {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, line["text"].get<std::string>());
      ++count;
    }
  }
  EXPECT_GT(count, 5);
}

}  // namespace
}  // namespace thermocline
