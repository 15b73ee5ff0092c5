// Elements, attributes and slices, and what dicts and ranges hold.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(Subscripts, CountFromEitherEndAndDescend) {
  ExpectExpressions({{"'abc'[0]", "a"},
                     {"'abc'[-1]", "c"},
                     {"'abc'[2]", "c"},
                     {"'abc'[-3]", "a"},
                     {"[1, 2, 3][1]", "2"},
                     {"[1, 2, 3][-3]", "1"},
                     {"{'a': 1}['a']", "1"},
                     {"{'a': {'b': 2}}.a.b", "2"},
                     {"{1: 'x'}[1]", "x"},
                     {"[[1, 2], [3]][0][1]", "2"},
                     {"(1, 2)[1]", "2"},
                     {"'h\\u00e4x'[1]", "\u00E4"},
                     {"[1,2].0", "1"}});
}

TEST(Subscripts, BeyondTheEndsNothingIsDefined) {
  ExpectExpressions({{"'abc'[3] is defined", "False"},
                     {"[1][1] is defined", "False"},
                     {"[1][-2] is defined", "False"},
                     {"{'a': 1}['b'] is defined", "False"},
                     {"{'a': 1}.b is defined", "False"},
                     {"[1][-1] is defined", "True"}});
}

TEST(Subscripts, SlicesClampTheirBoundsInEitherDirection) {
  ExpectExpressions({{"'abcdef'[1:4]", "bcd"},
                     {"'abcdef'[:2]", "ab"},
                     {"'abcdef'[4:]", "ef"},
                     {"'abcdef'[:]", "abcdef"},
                     {"'abcdef'[-2:]", "ef"},
                     {"'abcdef'[:-2]", "abcd"},
                     {"'abcdef'[::2]", "ace"},
                     {"'abcdef'[1::2]", "bdf"},
                     {"'abcdef'[::-1]", "fedcba"},
                     {"'abcdef'[4:1:-1]", "edc"},
                     {"'abcdef'[4:1]", ""},
                     {"'abcdef'[:-9]", ""},
                     {"'abcdef'[9:]", ""},
                     {"'abcdef'[-9:2]", "ab"},
                     {"'abcdef'[:9]", "abcdef"},
                     {"'abcdef'[-1:-9:-1]", "fedcba"},
                     {"'abcdef'[9::-2]", "fdb"},
                     {"'abcdef'[:2:-1]", "fed"},
                     {"'abcdef'[2::-1]", "cba"},
                     {"'abcdef'[-6:]", "abcdef"},
                     {"'abcdef'[-7:]", "abcdef"},
                     {"'abcdef'[:-6]", ""},
                     {"'abcdef'[:-7]", ""},
                     {"'abcdef'[-6::-1]", "a"},
                     {"'abcdef'[-7::-1]", ""},
                     {"'abcdef'[:-7:-1]", "fedcba"},
                     {"'abcdef'[:-6:-1]", "fedcb"},
                     {"'abcdef'[5:6]", "f"},
                     {"'abcdef'[6:7]", ""},
                     {"'abcdef'[5:9:9]", "f"},
                     {"[1, 2, 3, 4][1:3]", "[2, 3]"},
                     {"[1, 2, 3][::-1]", "[3, 2, 1]"},
                     {"(1, 2, 3)[1:]", "(2, 3)"},
                     {"'h\\u00e4\\u20acx'[1:3]", "\u00E4\u20AC"},
                     {"[1, 2, 3][none:2]", "[1, 2]"},
                     {"[1,2,3][1:none:none]", "[2, 3]"}});
}

TEST(Subscripts, DictsKeepTheOrderOfTheirKeysAndTheLastValue) {
  ExpectExpressions({{"{'a': 1}.items() | list", "[('a', 1)]"},
                     {"{'a': 1, 'b': 2}.keys() | list", "['a', 'b']"},
                     {"{'a': 1, 'b': 2}.values() | list", "[1, 2]"},
                     {"{'a': 1}.get('a')", "1"},
                     {"{'a': 1}.get('b')", "None"},
                     {"{'a': 1}.get('b', 7)", "7"},
                     {"{'a': 1}.get('a', 7)", "1"},
                     {"{'items': 3}['items']", "3"},
                     {"{'a': 1, 'a': 2}", "{'a': 2}"},
                     {"{1: 2, '1': 3}", "{1: 2, '1': 3}"},
                     {"{'b': 1, 'a': 2}", "{'b': 1, 'a': 2}"},
                     {"dict(a=1, b=2)", "{'a': 1, 'b': 2}"},
                     {"dict({'x': 1}, y=2)", "{'x': 1, 'y': 2}"},
                     {"dict()", "{}"},
                     {"dict({'x': 1}, x=2)", "{'x': 2}"}});
}

TEST(Subscripts, RangesReachUpToTheirEnd) {
  ExpectExpressions({{"range(3) | list", "[0, 1, 2]"},
                     {"range(1, 4) | list", "[1, 2, 3]"},
                     {"range(0, 10, 3) | list", "[0, 3, 6, 9]"},
                     {"range(5, 0, -2) | list", "[5, 3, 1]"},
                     {"range(3, 3) | list", "[]"},
                     {"range(3, 1) | list", "[]"},
                     {"range(1, 3, -1) | list", "[]"},
                     {"range(0, 9, 3) | list", "[0, 3, 6]"},
                     {"range(0, -3, -1) | list", "[0, -1, -2]"}});
}

}  // namespace
}  // namespace thermocline
