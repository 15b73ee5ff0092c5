// Filters of numbers, texts and lists.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(Filters, NumbersAreRoundedReadAndSummed) {
  ExpectExpressions({{"-3 | abs", "3"},
                     {"3 | abs", "3"},
                     {"-2.5 | abs", "2.5"},
                     {"2.5 | abs", "2.5"},
                     {"0 | abs", "0"},
                     {"'3.5' | float", "3.5"},
                     {"'x' | float", "0.0"},
                     {"'x' | float(1.5)", "1.5"},
                     {"3 | float", "3.0"},
                     {"'x' | float(default=2)", "2"},
                     {"true | float", "1.0"},
                     {"'1e3' | float", "1000.0"},
                     {"'42' | int", "42"},
                     {"'4.9' | int", "4"},
                     {"-4.9 | int", "-4"},
                     {"'x' | int", "0"},
                     {"'x' | int(7)", "7"},
                     {"4.9 | int", "4"},
                     {"true | int", "1"},
                     {"'x' | int(default=8)", "8"},
                     {"'-7' | int", "-7"},
                     {"none | int", "0"},
                     {"none | int(3)", "3"},
                     {"2.567 | round", "3.0"},
                     {"2.567 | round(2)", "2.57"},
                     {"2.1 | round(method='ceil')", "3.0"},
                     {"2.9 | round(method='floor')", "2.0"},
                     {"2.5 | round", "2.0"},
                     {"3.5 | round", "4.0"},
                     {"1234.5 | round(-2)", "1200.0"},
                     {"42.55 | round(1, 'floor')", "42.5"},
                     {"42.51 | round(1, 'ceil')", "42.6"},
                     {"-2.5 | round", "-2.0"},
                     {"0.125 | round(2)", "0.12"},
                     {"[1, 2, 3] | sum", "6"},
                     {"[1, 2] | sum(start=10)", "13"},
                     {"[{'n': 1}, {'n': 2}] | sum(attribute='n')", "3"},
                     {"[] | sum", "0"},
                     {"[1.5, 2] | sum", "3.5"},
                     {"[[1], [2]] | sum(start=[])", "[1, 2]"},
                     {"[3, 1, 2] | max", "3"},
                     {"[3, 1, 2] | min", "1"},
                     {"['b', 'a'] | max", "b"},
                     {"([] | max) is defined", "False"},
                     {"[1.5, 1] | min", "1"},
                     {"[1, 1] | max", "1"},
                     {"[2, 3, 1] | min", "1"},
                     {"[2, 3] | max", "3"}});
}

TEST(Filters, TextsAreCasedTrimmedAndEscaped) {
  ExpectExpressions(
      {{"'hELLO wORLD' | capitalize", "Hello world"},
       {"'' | capitalize", ""},
       {"'\\u00e4B' | capitalize", "\u00C4b"},
       {"'1aB' | capitalize", "1ab"},
       {"'AbC' | lower", "abc"},
       {"'aBc' | upper", "ABC"},
       {"'\\u00c4' | lower", "\u00E4"},
       {"'\\u00e4' | upper", "\u00C4"},
       {"'\\u00df' | upper", "SS"},
       {"'hello wORLD x-y' | title", "Hello World X-Y"},
       {"'aB cD' | title", "Ab Cd"},
       {"'\\u00e4b \\u00e4B' | title", "\u00C4b \u00C4b"},
       {"'' | title", ""},
       {"'  x ' | trim", "x"},
       {"'xxaxx' | trim('x')", "a"},
       {"'abcba' | trim('ab')", "c"},
       {"'\\t\\n\\r\\f\\v\\x1c\\x1d\\x1e\\x1f x \\x1f\\x1e\\x1d\\x1c\\v\\f\\r\\n\\t' | trim", "x"},
       {"'' | trim", ""},
       {"'   ' | trim", ""},
       {"'a' | trim", "a"},
       {"'xa' | trim(chars='x')", "a"},
       {"'<a href=\"x\">\\'&' | escape", "&lt;a href=&#34;x&#34;&gt;&#39;&amp;"},
       {"'<' | e", "&lt;"},
       {"'plain' | e", "plain"},
       {"'<' | safe", "<"},
       {"1 | safe", "1"},
       {"1 | string", "1"},
       {"none | string", "None"},
       {"[1] | string", "[1]"},
       {"1.0 | string", "1.0"},
       {"'a' | string", "a"},
       {"'abc' | reverse", "cba"},
       {"[1, 2, 3] | reverse | list", "[3, 2, 1]"},
       {"'h\\u00e4' | reverse", "\u00E4h"},
       {"[] | reverse | list", "[]"}});
}

TEST(Filters, ReplaceTakesACountAndMayBeGivenNothingToFind) {
  ExpectExpressions({{"'banana' | replace('a', 'o')", "bonono"},
                     {"'banana' | replace('a', 'o', 2)", "bonona"},
                     {"'banana' | replace('a', 'o', 0)", "banana"},
                     {"'banana' | replace('', '-')", "-b-a-n-a-n-a-"},
                     {"'abc' | replace('', '-', 2)", "-a-bc"},
                     {"'abc' | replace('', '-', 4)", "-a-b-c-"},
                     {"'abc' | replace('', '-', 5)", "-a-b-c-"},
                     {"'' | replace('', '-')", "-"},
                     {"'aaa' | replace('aa', 'b')", "ba"},
                     {"'abc' | replace('abc', '')", ""},
                     {"'h\\u00e4x' | replace('', '.')", ".h.\u00E4.x."},
                     {"'abc' | replace('x', 'y')", "abc"},
                     {"'aa' | replace('a', 'aa')", "aaaa"},
                     {"'abc' | replace('', '-', 1)", "-abc"},
                     {"'abc' | replace('', '-', 0)", "abc"},
                     {"'banana' | replace('an', '<>', count=1)", "b<>ana"}});
}

TEST(Filters, FormatFollowsPercentSigns) {
  ExpectExpressions({{"'%s=%d' | format('a', 5)", "a=5"},
                     {"'%+d % d' | format(3, 4)", "+3  4"},
                     {"'%e' | format(12345.678)", "1.234568e+04"},
                     {"'%g' | format(0.0001)", "0.0001"},
                     {"'%5.1f|' | format(2.25)", "  2.2|"},
                     {"'%d %i %x' | format(2.9, -2.9, 31.5)", "2 -2 1f"},
                     {"'%d' | format(-1e300)", "-9000000000000000000"}});
}

TEST(Filters, IndentLeavesTheFirstAndBlankLinesUnlessAsked) {
  ExpectExpressions({{"'a\\nb\\n\\nc' | indent", "a\n    b\n\n    c"},
                     {"'a\\nb' | indent(2)", "a\n  b"},
                     {"'a\\nb' | indent(2, true)", "  a\n  b"},
                     {"'a\\n\\nb' | indent(2, blank=true)", "a\n  \n  b"},
                     {"'a\\n\\nb' | indent(2, true, true)", "  a\n  \n  b"},
                     {"'a\\n\\nb' | indent(2, false, true)", "a\n  \n  b"},
                     {"'a\\nb' | indent('> ')", "a\n> b"},
                     {"'a\\nb' | indent(width=1, first=true)", " a\n b"},
                     {"'' | indent", ""},
                     {"'a\\n' | indent", "a\n"}});
}

TEST(Filters, DefaultStandsInForWhatIsNotThere) {
  ExpectExpressions({{"x | default('d')", "d"},
                     {"1 | default('d')", "1"},
                     {"'' | default('d')", ""},
                     {"'' | default('d', true)", "d"},
                     {"none | default('d')", "None"},
                     {"none | default('d', true)", "d"},
                     {"x | default", ""},
                     {"x | d('e')", "e"},
                     {"0 | default(5, boolean=true)", "5"},
                     {"'v' | default('d', true)", "v"},
                     {"x | default(default_value=3)", "3"},
                     {"'' | d('e', false)", ""}});
}

TEST(Filters, ListsAreCutCountedAndJoined) {
  ExpectExpressions({{"[1, 2, 3, 4, 5] | batch(2) | list", "[[1, 2], [3, 4], [5]]"},
                     {"[1, 2, 3, 4] | batch(2) | list", "[[1, 2], [3, 4]]"},
                     {"[] | batch(2) | list", "[]"},
                     {"[1] | batch(3) | list", "[[1]]"},
                     {"[1, 2, 3] | batch(linecount=3) | list", "[[1, 2, 3]]"},
                     {"'abc' | count", "3"},
                     {"[1, 2] | count", "2"},
                     {"'h\\u00e4' | length", "2"},
                     {"{'a': 1} | length", "1"},
                     {"'' | length", "0"},
                     {"[] | length", "0"},
                     {"[1, 2] | first", "1"},
                     {"'abc' | first", "a"},
                     {"[1, 2] | last", "2"},
                     {"'abc' | last", "c"},
                     {"([] | first) is defined", "False"},
                     {"([] | last) is defined", "False"},
                     {"[1, 2, 3] | join", "123"},
                     {"[1, 2, 3] | join(', ')", "1, 2, 3"},
                     {"'abc' | join('-')", "a-b-c"},
                     {"[{'n': 'a'}, {'n': 'b'}] | join('+', attribute='n')", "a+b"},
                     {"[] | join(',')", ""},
                     {"['a'] | join(',')", "a"},
                     {"[1, none, 'x'] | join(d='.')", "1.None.x"},
                     {"[1, 2] | join('')", "12"},
                     {"'abc' | list", "['a', 'b', 'c']"},
                     {"{'a': 1} | list", "['a']"},
                     {"(1, 2) | list", "[1, 2]"},
                     {"'h\\u00e4' | list | length", "2"},
                     {"[1, 2, 1, 3, 2] | unique | list", "[1, 2, 3]"},
                     {"['a', 'b', 'a'] | unique | list", "['a', 'b']"},
                     {"[] | unique | list", "[]"},
                     {"[[1], [1]] | unique | list if false else 'skip'", "skip"},
                     {"{'a': 1} | items | list", "[('a', 1)]"},
                     {"x | items | list", "[]"},
                     {"'a' | upper | lower", "a"},
                     {"['b', 'a'] | sort | first", "a"},
                     {"[1, 2, 3] | map('string') | join('')", "123"}});
}

}  // namespace
}  // namespace thermocline
