// What follows "is", and how tightly filters and tests bind.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(IsTests, Definedness) {
  ExpectExpressions({{"1 is defined", "True"},
                     {"x is defined", "False"},
                     {"x is undefined", "True"},
                     {"1 is undefined", "False"},
                     {"x is not defined", "True"},
                     {"none is none", "True"},
                     {"0 is none", "False"},
                     {"none is not none", "False"},
                     {"loop is defined", "False"},
                     {"namespace is defined", "True"}});
}

TEST(IsTests, Types) {
  ExpectExpressions(
      {{"'a' is string", "True"},     {"1 is string", "False"},    {"1 is number", "True"},
       {"1.5 is number", "True"},     {"true is number", "True"},  {"'a' is number", "False"},
       {"1 is integer", "True"},      {"1.0 is integer", "False"}, {"true is integer", "False"},
       {"1.0 is float", "True"},      {"1 is float", "False"},     {"true is boolean", "True"},
       {"1 is boolean", "False"},     {"true is true", "True"},    {"1 is true", "False"},
       {"false is true", "False"},    {"false is false", "True"},  {"0 is false", "False"},
       {"true is false", "False"},    {"{} is mapping", "True"},   {"[] is mapping", "False"},
       {"[] is sequence", "True"},    {"'a' is sequence", "True"}, {"{} is sequence", "True"},
       {"1 is sequence", "False"},    {"[] is iterable", "True"},  {"'a' is iterable", "True"},
       {"{} is iterable", "True"},    {"1 is iterable", "False"},  {"() is sequence", "True"},
       {"range is callable", "True"}, {"1 is callable", "False"}});
}

TEST(IsTests, Properties) {
  ExpectExpressions({{"3 is odd", "True"},
                     {"4 is odd", "False"},
                     {"-3 is odd", "True"},
                     {"3 is even", "False"},
                     {"4 is even", "True"},
                     {"0 is even", "True"},
                     {"4 is divisibleby 2", "True"},
                     {"5 is divisibleby(2)", "False"},
                     {"0 is divisibleby 3", "True"},
                     {"'abc' is lower", "True"},
                     {"'aBc' is lower", "False"},
                     {"'ABC' is upper", "True"},
                     {"'aBC' is upper", "False"}});
}

TEST(IsTests, ComparisonsAndMembership) {
  ExpectExpressions({{"1 is eq 1", "True"},
                     {"1 is equalto(2)", "False"},
                     {"[1, 2] | select('==', 2) | list", "[2]"},
                     {"[1, 2] | select('!=', 2) | list", "[1]"},
                     {"[1, 2] | select('<', 2) | list", "[1]"},
                     {"[1, 2] | select('>', 1) | list", "[2]"},
                     {"[1, 2, 3] | select('<=', 2) | list", "[1, 2]"},
                     {"[1, 2, 3] | select('>=', 2) | list", "[2, 3]"},
                     {"[1, 2, 3] | reject('>=', 2) | list", "[1]"},
                     {"[1, 2] | select('eq', 1) | list", "[1]"},
                     {"[1, 2] | select('equalto', 1) | list", "[1]"},
                     {"1 is ne 2", "True"},
                     {"1 is ne 1", "False"},
                     {"1 is lt 2", "True"},
                     {"2 is lt 2", "False"},
                     {"1 is lessthan 2", "True"},
                     {"2 is gt 1", "True"},
                     {"1 is gt 1", "False"},
                     {"2 is greaterthan 1", "True"},
                     {"1 is le 1", "True"},
                     {"2 is le 1", "False"},
                     {"1 is ge 1", "True"},
                     {"0 is ge 1", "False"},
                     {"1 is in [1]", "True"},
                     {"2 is in [1]", "False"},
                     {"'a' is in 'abc'", "True"},
                     {"'d' is in 'abc'", "False"},
                     {"1 is not in [1]", "False"},
                     {"'a' is in {'a': 1}", "True"},
                     {"true is sameas true", "True"},
                     {"1 is sameas 2", "False"}});
}

// What may follow a test's name is no argument of it.
TEST(IsTests, WordsOfTheLanguageAreNoArguments) {
  ExpectRendered({{"{{ 1 is odd in [true] }}", "True"},
                  {"{{ 1 is odd is true }}", "True"},
                  {"{{ 1 is odd and 2 is odd }}|{{ 2 is odd or 1 is odd }}", "False|True"},
                  {"{{ 1 is odd not in [true] }}", "False"},
                  {"{{ 'a' if 1 is odd else 'b' }}|{{ 1 is odd if 1 is odd else 2 }}", "a|True"}});
}

TEST(IsTests, TestsAndFiltersBindTighterThanOperators) {
  ExpectExpressions({{"1 is odd and 2 is even", "True"},
                     {"'o' if 1 is odd", "o"},
                     {"not 1 is odd", "False"},
                     {"1 is not odd or true", "True"},
                     {"1 is odd ~ 'x'", "Truex"},
                     {"'a,b' | replace(',', ';') | upper", "A;B"},
                     {"-1 | abs", "1"},
                     {"1 ~ 2 | string ~ 'x'", "12x"},
                     {"'a' ~ 'b' | upper", "aB"},
                     {"2 * 3 | string | length", "2"},
                     {"[1, 2] | length + 1", "3"},
                     {"'abc' | first | upper", "A"},
                     {"('abc' | list)[1]", "b"},
                     {"'x'.upper().lower()", "x"},
                     {"'a b'.split()[0]", "a"}});
}

}  // namespace
}  // namespace thermocline
