// What a template may not say, with the line, and what it may not do.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(TemplateErrors, WhatIsNotClosedIsNamed) {
  ExpectTemplateErrors({{"{{ 1", "a tag is not closed by }}"},
                        {"{{ 1e", "a tag is not closed by }}"},
                        {"{{ 1e+", "a tag is not closed by }}"},
                        {"{{ 1.", "a tag is not closed by }}"},
                        {"{{ 1 %}", "a tag is not closed by }}"},
                        {"{{ (1 }}", "a tag is not closed by }}"},
                        {"{% if x", "a tag is not closed by %}"},
                        {"{# x", "a comment is not closed"},
                        {"{# x #", "a comment is not closed"},
                        {"{#", "a comment is not closed"},
                        {"{% raw %}x", "a raw block is not closed"},
                        {"{% raw %}{% endraw", "a raw block is not closed"},
                        {"{{ 'a }}", "a string is not closed"},
                        {"{{ 'a\\' }}", "a string is not closed"},
                        {"{% if 1 %}x", "\"elif\" is missing"},
                        {"{% if 1 %}x{% else %}y", "\"endif\" is missing"},
                        {"{% for i in x %}x", "\"else\" is missing"},
                        {"{% macro f() %}x", "\"endmacro\" is missing"},
                        {"{% set x %}x", "\"endset\" is missing"},
                        {"{% filter upper %}x", "\"endfilter\" is missing"},
                        {"{% call f() %}x", "\"endcall\" is missing"}});
}

TEST(TemplateErrors, CharactersAndEscapesThatAreNone) {
  ExpectTemplateErrors({{"{{ a ? b }}", "unexpected character '?'"},
                        {"{{ a ! b }}", "unexpected character '!'"},
                        {"{{ '\\x4' }}", "a bad escape"},
                        {"{{ '\\xZZ' }}", "a bad escape"},
                        {"{{ '\\u12' }}", "a bad escape"},
                        {"{{ '\\U00110000' }}", "a bad escape"}});
  ExpectExpressions(
      {{"'\\U0010FFFF'", "\U0010FFFF"}, {"'\\u07FF\\u0800\\x7F'", "\u07FF\u0800\x7F"}});
}

TEST(TemplateErrors, SyntaxThatDoesNotFit) {
  ExpectTemplateErrors({{"{% unknown %}", "unknown statement \"unknown\""},
                        {"{% endif %}", "unknown statement \"endif\""},
                        {"{% 1 %}", "a name expected, found \"1\""},
                        {"{% if %}x{% endif %}", "an expression expected"},
                        {"{% if 1 2 %}x{% endif %}", "\"%}\" expected, found \"2\""},
                        {"{% for x of y %}{% endfor %}", "\"in\" expected"},
                        {"{% for 1 in y %}{% endfor %}", "a name expected"},
                        {"{% set 1 = 2 %}", "a name expected"},
                        {"{% set x = %}", "an expression expected"},
                        {"{% macro f %}{% endmacro %}", "\"(\" expected"},
                        {"{% macro f(1) %}{% endmacro %}", "a name expected"},
                        {"{% macro f(a] %}{% endmacro %}", "\")\" expected"},
                        {"{% call x %}{% endcall %}", "\"call\" needs a call"},
                        {"{% filter upper[0] %}{% endfilter %}", "\"filter\" needs filters only"},
                        {"{% break x %}", "\"%}\" expected"},
                        {"{{ 1 2 }}", "\"}}\" expected, found \"2\""},
                        {"{{ 1 + }}", "an expression expected"},
                        {"{{ [1, 2) }}", "\"]\" expected"},
                        {"{{ (1, 2] }}", "\")\" expected"},
                        {"{{ {1 2} }}", "\":\" expected"},
                        {"{{ {1: 2] }}", "\"}\" expected"},
                        {"{{ x[] }}", "an empty subscript"},
                        {"{{ x[1) }}", "\"]\" expected"},
                        {"{{ f(1] }}", "\")\" expected"},
                        {"{{ x. }}", "a name expected"},
                        {"{{ x | }}", "a name expected"},
                        {"{{ x is }}", "a name expected"},
                        {"{{ x not y }}", "\"}}\" expected"}});
}

TEST(TemplateErrors, TheLineIsTheTagsOwn) {
  ExpectTemplateErrors({{"{{ 1 + }}", "template line 1: "},
                        {"a\nb\n{{ 1 + }}", "template line 3: "},
                        {"{# a\n\n #}\n{{ 1 + }}", "template line 4: "},
                        {"{% raw %}\n\n{% endraw %}{{ 1 + }}", "template line 3: "},
                        {"{{ 'a\nb' }}\n{{ 1 + }}", "template line 3: "},
                        {"{%- if 1\n-%}\n\n{{ 1 + }}", "template line 4: "},
                        {"\n{{ 1 ?", "template line 2: "}});
}

TEST(TemplateErrors, ValuesThatAreNotThere) {
  ExpectTemplateErrors({{"{{ x.y }}", "'x' is undefined, so it has no 'y'"},
                        {"{{ x[0] }}", "'x' is undefined, so it has no '0'"},
                        {"{{ {}.x.y }}", "'x' is undefined"},
                        {"{{ x() }}", "'x' is undefined"},
                        {"{{ x + 1 }}", "'x' is undefined"},
                        {"{{ 1 - y }}", "'y' is undefined"},
                        {"{{ x | tojson }}", "'x' is undefined: not JSON"},
                        {"{{ [] | nope }}", "filter \"nope\" is not supported"},
                        {"{{ 1 is nope }}", "test \"nope\" is not supported"},
                        {"{{ 1 is nope 2 }}", "test \"nope\" is not supported"},
                        {"{{ [1] | map('nope') | list }}", "filter \"nope\" is not supported"},
                        {"{{ [1] | select('nope') | list }}", "test \"nope\" is not supported"}});
}

TEST(TemplateErrors, OperatorsAndTypesThatDoNotFit) {
  ExpectTemplateErrors({{"{{ 1() }}", "a value of type int cannot be called"},
                        {"{{ none() }}", "a value of type none cannot be called"},
                        {"{{ 'a' < 1 }}", "a str and a int have no order"},
                        {"{{ [1] < 1 }}", "a list and a int have no order"},
                        {"{{ [1, 'a'] < [1, 2] }}", "a str and a int have no order"},
                        {"{{ 1 in 'a' }}", "needs a string, not a int"},
                        {"{{ 1 in 2 }}", "a value of type int cannot be iterated over"},
                        {"{% for i in 3 %}{% endfor %}", "a value of type int cannot be iterated"},
                        {"{% for i in none %}{% endfor %}", "type none cannot be iterated"},
                        {"{{ -'a' }}", "unary - of a str"},
                        {"{{ +[] }}", "unary + of a list"},
                        {"{{ 'a'[1:'b'] }}", "slice bounds must be whole numbers"},
                        {"{{ 'a'[1.5:] }}", "slice bounds must be whole numbers"},
                        {"{{ 'a'[::0] }}", "a slice step of 0"},
                        {"{{ 1[:1] }}", "a int cannot be sliced"},
                        {"{{ {}[:1] }}", "a dict cannot be sliced"},
                        {"{{ 1 / 0 }}", "division by zero"},
                        {"{{ 1 // 0 }}", "division by zero"},
                        {"{{ 1 % 0 }}", "division by zero"},
                        {"{{ 1.5 / 0 }}", "division by zero"},
                        {"{{ 1.5 // 0 }}", "division by zero"},
                        {"{{ 1 % 0.0 }}", "division by zero"},
                        {"{{ 'a' + 1 }}", "\"+\" does not apply to a str and a int"},
                        {"{{ [] + (1,) + 'a' }}", "\"+\" does not apply"},
                        {"{{ 'a' - 'b' }}", "\"-\" does not apply to a str and a str"},
                        {"{{ 'a' * 1.5 }}", "\"*\" does not apply to a str and a float"},
                        {"{{ {} * 2 }}", "\"*\" does not apply to a dict and a int"}});
}

TEST(TemplateErrors, AssignmentsThatDoNotFit) {
  ExpectTemplateErrors(
      {{"{% set a, b = [1] %}", "cannot unpack 1 values into 2 names"},
       {"{% set a, b = [1, 2, 3] %}", "cannot unpack 3 values into 2 names"},
       {"{% for a, b in [1] %}{% endfor %}", "a value of type int cannot be iterated"},
       {"{% set d = {} %}{% set d.a = 1 %}", "cannot set attribute \"a\" of a dict"},
       {"{% set x.a = 1 %}", "cannot set attribute \"a\" of a undefined"},
       {"{% set ns = namespace() %}{% set ns.a = ns %}", "a namespace cannot be stored"},
       {"{% set ns = namespace() %}{% set ns.a = [ns] %}", "a namespace cannot be stored"},
       {"{% set ns = namespace() %}{% set ns.a = {'x': ns} %}", "a namespace cannot be stored"}});
}

TEST(TemplateErrors, FiltersAndFunctionsSayWhatTheyNeed) {
  ExpectTemplateErrors(
      {{"{{ 1 | length }}", "a int has no length"},
       {"{{ 1 | items }}", "items of a int"},
       {"{{ [1] | map }}", "map needs a filter or an attribute"},
       {"{{ [1] | selectattr }}", "selectattr needs an attribute"},
       {"{{ [1] | rejectattr }}", "selectattr needs an attribute"},
       {"{{ 'a' | round }}", "round of something that is not a number"},
       {"{{ 'a' | abs }}", "abs of something that is not a number"},
       {"{{ 'a' | replace('a') }}", "replace needs two arguments"},
       {"{{ [1, 'a'] | sort }}", "have no order"},
       {"{{ [1, 'a'] | max }}", "have no order"},
       {"{{ '%d' | format('a') }}", "a format needs a number"},
       {"{{ '%s %s' | format('a') }}", "not enough arguments"},
       {"{{ '%' | format(1) }}", "a bad format"},
       {"{{ '%0000000000d' | format(1) }}", "a bad format"},
       {"{{ 'a'.index('b') }}", "substring not found"},
       {"{{ [1].index(2) }}", "the value is not in the list"},
       {"{{ [1].count() }}", "count needs an argument"},
       {"{{ 'a'.split('') }}", "split by an empty separator"},
       {"{{ 'a'.startswith() }}", "startswith needs an argument"},
       {"{{ 'a'.endswith(1) }}", "startswith needs a string"},
       {"{{ {}.get() }}", "get needs a key"},
       {"{{ range() }}", "range needs one to three arguments"},
       {"{{ range(1, 2, 3, 4) }}", "range needs one to three arguments"},
       {"{{ range('a') }}", "range needs whole numbers"},
       {"{{ range(1, 5, 0) }}", "a range step of 0"},
       {"{{ strftime_now('') }}", "strftime_now needs a short format"},
       {"{{ strftime_now('" + std::string(257, 'x') + "') }}", "strftime_now needs a short format"},
       {"{% for i in [1] %}{{ loop.cycle() }}{% endfor %}", "loop.cycle needs values"},
       {"{% for i in [1] recursive %}{{ loop() }}{% endfor %}", "loop() needs a list"},
       {"{{ raise_exception('roles must alternate') }}", "roles must alternate"},
       {"{{ raise_exception() }}", "raised an exception"}});
  ExpectExpressions({{"strftime_now('" + std::string(256, 'x') + "')", std::string(256, 'x')},
                     {"strftime_now('%%') ~ 'a'", "%a"}});
}

// The first error is the one that is told, and nothing is rendered behind it.
TEST(TemplateErrors, TheFirstErrorStays) {
  ExpectTemplateErrors(
      {{"{{ raise_exception('one') }}{{ raise_exception('two') }}", "one"},
       {"{% for i in [1, 2] %}{{ raise_exception('at ' ~ i) }}{% endfor %}", "at 1"},
       {"{% if raise_exception('cond') %}{{ 1 / 0 }}{% endif %}", "cond"},
       {"{{ [raise_exception('a'), 1 / 0] }}", "a"}});
}

}  // namespace
}  // namespace thermocline
