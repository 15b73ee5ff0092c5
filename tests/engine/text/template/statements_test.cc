// Conditions, loops, scopes, macros and filter blocks.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(Statements, ConditionsChooseTheirBranch) {
  ExpectRendered(
      {{"{% if 1 %}a{% endif %}", "a"},
       {"{% if 0 %}a{% endif %}", ""},
       {"{% if 0 %}a{% else %}b{% endif %}", "b"},
       {"{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}", "b"},
       {"{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "c"},
       {"{% if 0 %}a{% elif 0 %}b{% elif 1 %}c{% endif %}", "c"},
       {"{% if 1 %}a{% elif 1 %}b{% endif %}", "a"},
       {"{% if x %}a{% endif %}b", "b"},
       {"{% if 1, 0 %}t{% endif %}", "t"},
       {"{% if 1 %}{% for i in [1] %}{% if i %}deep{% endif %}{% endfor %}{% endif %}", "deep"}});
}

TEST(Statements, LoopsGoOverElementsKeysAndCharacters) {
  ExpectRendered(
      {{"{% for i in [1, 2, 3] %}{{ i }}{% endfor %}", "123"},
       {"{% for i in [] %}x{% else %}empty{% endfor %}", "empty"},
       {"{% for i in [1] %}x{% else %}empty{% endfor %}", "x"},
       {"{% for i in x %}x{% else %}empty{% endfor %}", "empty"},
       {"{% for c in 'h\u00E4\u20AC' %}<{{ c }}>{% endfor %}", "<h><\u00E4><\u20AC>"},
       {"{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}", "ab"},
       {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "a=1;b=2;"},
       {"{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }} {% endfor %}", "3 7 "},
       {"{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}", "12"},
       {"{% for i in 1, 2 %}{{ i }}{% endfor %}", "12"},
       {"{% for i in range(9) if i % 2 %}{{ i }}{% endfor %}", "1357"},
       {"{% for i in range(4) if i > 5 %}x{% else %}none{% endfor %}", "none"},
       {"{% for a, b in [(1, 2), (3, 1)] if a < b %}{{ a }}{% endfor %}", "1"},
       {"{% for i in [3, 1, 2] | sort %}{{ i }}{% endfor %}", "123"},
       {"{% for i in ([1, 2] if 1 else []) %}{{ i }}{% endfor %}", "12"},
       {"{% for i in [1, 2, 3][1:] %}{{ i }}{% endfor %}", "23"}});
}

TEST(Statements, BreakLeavesTheLoopAndContinueGoesOnWithTheNext) {
  ExpectRendered(
      {{"{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"},
       {"{% for i in range(5) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
        "0134"},
       {"{% for i in range(5) %}{% if i is odd %}{% continue %}{% endif %}{% for j in range(9) "
        "%}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
        "00 01 20 21 40 41 "},
       {"{% for i in [1, 2] %}{% continue %}x{% else %}e{% endfor %}", "e"},
       {"{% for i in [1] %}{% break %}{% else %}e{% endfor %}y", "ey"},
       {"{% for i in [1] %}a{% set q = 1 %}{% break %}b{% endfor %}c", "ac"}});
}

TEST(Statements, LoopTellsWhereItIs) {
  ExpectRendered(
      {{"{% for i in range(6) if i % 2 %}{{ loop.index }}{{ loop.length }}{{ loop.last }} {% "
        "endfor %}",
        "13False 23False 33True "},
       {"{% for i in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 "
        "}}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% "
        "endfor %}",
        "1032TrueFalse310 2121FalseFalse310 3210FalseTrue310 "},
       {"{% for i in [1, 2, 3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
        "<1>2 1<2>3 2<3> "},
       {"{% for i in [1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% "
        "endfor %}",
        "FalseTrue TrueFalse "},
       {"{% for i in range(5) %}{{ loop.cycle('a', 'b', 'c') }}{% endfor %}", "abcab"},
       {"{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }} {% "
        "endfor %}",
        "121 122 "},
       {"{% for i in [[1, [2, 3]], 4] recursive %}{% if i is iterable %}[{{ loop(i) }}]{% else "
        "%}{{ i }}@{{ loop.depth }}{{ loop.depth0 }}{% endif %}{% endfor %}",
        "[1@21[2@323@32]]4@10"},
       {"{% for i in [1] %}{{ loop.nope is defined }}{% endfor %}", "False"},
       {"{% for i in [1,2] | reverse %}{{ i }}{{ loop.length }}{% endfor %}", "2212"}});
}

TEST(Statements, WhatALoopSetsStaysInIt) {
  ExpectRendered(
      {{"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
       {"{% set x = 1 %}{% if 1 %}{% set x = 2 %}{% endif %}{{ x }}", "2"},
       {"{% for i in [1, 2] %}{% if i == 1 %}{% set y = 5 %}{% endif %}{{ y }}|{% endfor %}{{ y }}",
        "5||"},
       {"{% for i in [1] %}{% endfor %}{{ i }}|", "|"},
       {"{% for x in [1, 2] %}{% for y in [x] %}{{ x }}{{ y }} {% endfor %}{% endfor %}{{ x is "
        "defined }}",
        "11 22 False"},
       {"{% set x = 9 %}{% for x in [1, 2] %}{{ x }}{% endfor %}{{ x }}", "129"}});
}

TEST(Statements, SetAssignsUnpacksAndCaptures) {
  ExpectRendered({{"{% set x, y = 1, 2 %}{{ x }}{{ y }}", "12"},
                  {"{% set x, y = [3, 4] %}{{ x }}{{ y }}", "34"},
                  {"{% set x, y = 'ab' %}{{ y }}{{ x }}", "ba"},
                  {"{% set x = 1, 2 %}{{ x }}", "(1, 2)"},
                  {"{% set (a, b) = (1, 2) %}{{ a + b }}", "3"},
                  {"{% set x = 1 if 0 else 2 %}{{ x }}", "2"},
                  {"{% set t %}hi {{ 1 }}{% endset %}{{ t }}|{{ t | upper }}", "hi 1|HI 1"},
                  {"{% set t %}{% endset %}[{{ t }}]", "[]"},
                  {"a{% set t %}b{% endset %}c{{ t }}", "acb"}});
}

TEST(Statements, NamespacesOutliveLoops) {
  ExpectRendered(
      {{"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor "
        "%}{{ ns.n }}",
        "6"},
       {"{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}", "1"},
       {"{% set ns = namespace({'a': 3}, b=4) %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
        "34False"},
       {"{% set ns = namespace(a=1) %}{% set ns.a %}x{{ 2 }}{% endset %}{{ ns.a }}", "x2"},
       {"{% set ns = namespace() %}{{ 't' if ns else 'f' }}", "t"}});
}

TEST(Statements, MacrosTakeArgumentsAndTheirDefaults) {
  ExpectRendered(
      {{"{% macro f() %}x{% endmacro %}{{ f() }}{{ f() }}", "xx"},
       {"{% macro f(a, b) %}{{ a }}{{ b }}|{% endmacro %}{{ f(1, 2) }}{{ f(1) }}{{ f(b=3, a=4) }}",
        "12|1|43|"},
       {"{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f('x', b='y') }}{{ f(1, "
        "2) }}",
        "1Bxy12"},
       {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
        "3210"},
       {"{% macro f() %} x {% endmacro %}[{{ f() | trim }}]", "[x]"},
       {"{% set g = 5 %}{% macro f() %}{{ g }}{% endmacro %}{{ f() }}", "5"},
       {"{% macro f() %}{% set x = 1 %}{{ x }}{% endmacro %}{{ f() }}{{ x is defined }}", "1False"},
       {"{% macro f(x) %}{% set x = 2 %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f(5) }}{{ x }}",
        "21"},
       {"{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(none) }}", "FalseTrue"},
       {"{% macro f() %}x{% endmacro %}{{ f() ~ 'y' }}", "xy"},
       {"{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}in{% endcall %}", "[in]"},
       {"{% macro f() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b) f() %}{{ a }}{{ b }}{% "
        "endcall %}",
        "[12]"},
       {"{% macro f(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call f(x=3) %}in{% endcall %}",
        "3in"},
       {"{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}{% call f() %}{% endcall %}",
        "FalseTrue"}});
}

TEST(Statements, FilterBlocksFilterWhatTheyWrite) {
  ExpectRendered({{"{% filter upper %}a{{ 'b' }}{% endfilter %}c", "ABc"},
                  {"{% filter replace('a', 'b') %}banana{% endfilter %}", "bbnbnb"},
                  {"{% filter upper | replace('A', 'x') %}aba{% endfilter %}", "xBx"},
                  {"{% filter trim %} x {% endfilter %}|", "x|"}});
}

}  // namespace
}  // namespace thermocline
