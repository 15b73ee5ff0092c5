// Filters that choose, order and print elements.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(Filters, MapTakesAFilterOrAnAttribute) {
  ExpectExpressions({{"[{'n': 1}, {'n': 2}] | map(attribute='n') | list", "[1, 2]"},
                     {"['a', 'b'] | map('upper') | list", "['A', 'B']"},
                     {"[{'a': {'b': 1}}] | map(attribute='a.b') | list", "[1]"},
                     {"[[1, 2], [3, 4]] | map(attribute=1) | list", "[2, 4]"},
                     {"[{'n': 1}, {}] | map(attribute='n', default=0) | list", "[1, 0]"},
                     {"[1, 2] | map('string') | list", "['1', '2']"},
                     {"['a,b'] | map('replace', ',', ';') | list", "['a;b']"},
                     {"[] | map('upper') | list", "[]"},
                     {"[[1], [2, 3]] | map('length') | list", "[1, 2]"},
                     {"[['x', 'y']] | map(attribute='0') | list", "['x']"}});
}

TEST(Filters, SelectAndRejectTestElementsOrTheirAttributes) {
  ExpectExpressions(
      {{"[1, 2, 3, 4] | reject('odd') | list", "[2, 4]"},
       {"[1, 2, 3, 4] | select('odd') | list", "[1, 3]"},
       {"[0, 1, '', 'a'] | select | list", "[1, 'a']"},
       {"[0, 1, '', 'a'] | reject | list", "[0, '']"},
       {"[1, 2, 3] | select('gt', 1) | list", "[2, 3]"},
       {"[1, 2, 3] | reject('in', [1, 3]) | list", "[2]"},
       {"[1, 2, 4] | select('divisibleby', 2) | list", "[2, 4]"},
       {"[{'r': 'a'}, {'r': 'b'}] | selectattr('r', 'equalto', 'b') | list", "[{'r': 'b'}]"},
       {"[{'r': 'a'}, {'r': 'b'}] | rejectattr('r', 'equalto', 'b') | list", "[{'r': 'a'}]"},
       {"[{'r': 0}, {'r': 1}] | selectattr('r') | list", "[{'r': 1}]"},
       {"[{'r': 0}, {'r': 1}] | rejectattr('r') | list", "[{'r': 0}]"},
       {"[{'r': 1}, {}] | selectattr('r', 'defined') | list", "[{'r': 1}]"},
       {"[{'a': {'b': 1}}, {'a': {'b': 0}}] | selectattr('a.b') | list", "[{'a': {'b': 1}}]"},
       {"[] | selectattr('x') | list", "[]"},
       {"[{'r': 1}, {}] | rejectattr('r', 'defined') | list", "[{}]"}});
}

TEST(Filters, SortFoldsCaseAndIsStable) {
  ExpectExpressions(
      {{"[3, 1, 2] | sort", "[1, 2, 3]"},
       {"[3, 1, 2] | sort(reverse=true)", "[3, 2, 1]"},
       {"['b', 'A', 'c'] | sort", "['A', 'b', 'c']"},
       {"['b', 'A', 'c'] | sort(case_sensitive=true)", "['A', 'b', 'c']"},
       {"[{'n': 2}, {'n': 1}] | sort(attribute='n')", "[{'n': 1}, {'n': 2}]"},
       {"[(2, 'a'), (1, 'b')] | sort", "[(1, 'b'), (2, 'a')]"},
       {"['a', 'B'] | sort(true)", "['B', 'a']"},
       {"[{'n': 'b', 'i': 1}, {'n': 'B', 'i': 2}, {'n': 'a', 'i': 3}] | sort(attribute='n')",
        "[{'n': 'a', 'i': 3}, {'n': 'b', 'i': 1}, {'n': 'B', 'i': 2}]"},
       {"[] | sort", "[]"},
       {"['A', 'a', 'A'] | sort", "['A', 'a', 'A']"},
       {"[{'i': 1, 'k': 0}, {'i': 2, 'k': 0}] | sort(attribute='k', reverse=true)",
        "[{'i': 1, 'k': 0}, {'i': 2, 'k': 0}]"},
       {"{'b': 1, 'a': 2} | dictsort", "[('a', 2), ('b', 1)]"},
       {"{'b': 1, 'a': 2} | dictsort(by='value')", "[('b', 1), ('a', 2)]"},
       {"{'b': 1, 'a': 2} | dictsort(reverse=true)", "[('b', 1), ('a', 2)]"},
       {"{'B': 1, 'a': 2} | dictsort", "[('a', 2), ('B', 1)]"},
       {"{'B': 1, 'a': 2} | dictsort(true)", "[('B', 1), ('a', 2)]"},
       {"{'b': 1, 'a': 2} | dictsort(false, 'value')", "[('b', 1), ('a', 2)]"}});
}

TEST(Filters, ToJsonEscapesWhatJsonMust) {
  ExpectExpressions({{"{'b': [1, true, none], 'a': 'x\"\\\\\\n'} | tojson",
                      "{\"b\": [1, true, null], \"a\": \"x\\\"\\\\\\n\"}"},
                     {"'h\\u00e4' | tojson", "\"h\u00E4\""},
                     {"[] | tojson", "[]"},
                     {"{} | tojson", "{}"},
                     {"1.0 | tojson", "1.0"},
                     {"none | tojson", "null"},
                     {"(1, 2) | tojson", "[1, 2]"},
                     {"{'a': {}} | tojson(indent=2)", "{\n  \"a\": {}\n}"},
                     {"'\\t\\r\\b\\f\\x01\\x1f/' | tojson", "\"\\t\\r\\b\\f\\u0001\\u001f/\""},
                     {"{'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true)",
                      "{\"a\": {\"c\": 2, \"d\": 1}, \"b\": 1}"},
                     {"{1: 2} | tojson", "{\"1\": 2}"},
                     {"true | tojson", "true"},
                     {"-5 | tojson", "-5"},
                     {"1e20 | tojson", "1e+20"},
                     {"'\\x7f\\u2028' | tojson", "\"\177\u2028\""},
                     {"{'a': [1, {'b': 2}], 'c': []} | tojson(indent=2)",
                      "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": []\n}"},
                     {"[1, 2] | tojson(indent=4)", "[\n    1,\n    2\n]"},
                     {"{'a': 1} | tojson(indent=0)", "{\n\"a\": 1\n}"},
                     {"[[]] | tojson(indent=1)", "[\n []\n]"}});
}

}  // namespace
}  // namespace thermocline
