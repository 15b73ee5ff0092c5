// Methods of strings, lists and dicts.
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(Methods, StripTakesWhiteSpaceOfEveryKindOrGivenCharacters) {
  ExpectExpressions({{"' x '.strip()", "x"},
                     {"' x '.lstrip()", "x "},
                     {"' x '.rstrip()", " x"},
                     {"'xax'.strip('x')", "a"},
                     {"'xyaxy'.lstrip('xy')", "axy"},
                     {"'xyaxy'.rstrip('yx')", "xya"},
                     {"'aaa'.strip('a')", ""},
                     {"'\\v\\f\\x1c\\x1fx\\x1e\\x1d'.strip()", "x"},
                     {"' \\n\\tx'.lstrip()", "x"},
                     {"''.strip()", ""},
                     {"'a b'.strip()", "a b"},
                     {"'abc'.lstrip('abc')", ""}});
}

TEST(Methods, SplitCutsAtBlanksOrASeparator) {
  ExpectExpressions({{"'a b  c'.split()", "['a', 'b', 'c']"},
                     {"' a b '.split()", "['a', 'b']"},
                     {"'a,b,,c'.split(',')", "['a', 'b', '', 'c']"},
                     {"'a,b,c'.split(',', 1)", "['a', 'b,c']"},
                     {"'abc'.split('x')", "['abc']"},
                     {"''.split()", "[]"},
                     {"''.split(',')", "['']"},
                     {"'a b c'.split(none, 1)", "['a', 'b c']"},
                     {"'a b c'.split(maxsplit=1)", "['a', 'b c']"},
                     {"'a--b'.split('--')", "['a', 'b']"},
                     {"' a  b  c '.split(none, 1)", "['a', 'b  c ']"},
                     {"'a,b'.split(',', 0)", "['a,b']"},
                     {"'a b'.split(none, 0)", "['a b']"},
                     {"'a,b,c'.split(',', 2)", "['a', 'b', 'c']"},
                     {"'a,b,c'.split(',', -1)", "['a', 'b', 'c']"},
                     {"'a,b,'.split(',')", "['a', 'b', '']"},
                     {"',a'.split(',')", "['', 'a']"},
                     {"'a\\tb\\nc\\rd\\fe\\vf'.split()", "['a', 'b', 'c', 'd', 'e', 'f']"},
                     {"'a b c d'.split(none, 2)", "['a', 'b', 'c d']"},
                     {"'aXbXc'.split(sep='X')", "['a', 'b', 'c']"}});
}

TEST(Methods, RsplitCutsFromTheRight) {
  ExpectExpressions({{"'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"},
                     {"'a,b,c'.rsplit(',')", "['a', 'b', 'c']"},
                     {"'a b'.rsplit()", "['a', 'b']"},
                     {"'abc'.rsplit('x', 1)", "['abc']"},
                     {"'a,b,c'.rsplit(',', 0)", "['a,b,c']"},
                     {"',a'.rsplit(',', 1)", "['', 'a']"},
                     {"'a,'.rsplit(',', 1)", "['a', '']"},
                     {"'aaa'.rsplit('aa')", "['a', '']"},
                     {"''.rsplit(',')", "['']"},
                     {"'a--b--c'.rsplit('--', 1)", "['a--b', 'c']"},
                     {"'a,b,c'.rsplit(',', 2)", "['a', 'b', 'c']"}});
}

TEST(Methods, SplitlinesKnowsEveryLineEnd) {
  ExpectExpressions({{"'a\\nb\\r\\nc\\rd'.splitlines()", "['a', 'b', 'c', 'd']"},
                     {"''.splitlines()", "[]"},
                     {"'a\\n'.splitlines()", "['a']"},
                     {"'\\n\\na'.splitlines()", "['', '', 'a']"},
                     {"'a\\n\\r\\nb'.splitlines()", "['a', '', 'b']"},
                     {"'abc'.splitlines()", "['abc']"}});
}

TEST(Methods, StartswithAndEndswithTakeOneOrSeveral) {
  ExpectExpressions({{"'abc'.startswith('ab')", "True"},
                     {"'abc'.startswith('b')", "False"},
                     {"'abc'.startswith(('x', 'a'))", "True"},
                     {"'abc'.startswith('')", "True"},
                     {"'abc'.endswith('bc')", "True"},
                     {"'abc'.endswith('b')", "False"},
                     {"'abc'.endswith(('x', 'c'))", "True"},
                     {"'abc'.startswith(('x', 'y'))", "False"},
                     {"'abc'.endswith('abcd')", "False"},
                     {"'abc'.startswith(())", "False"}});
}

TEST(Methods, FindAndIndexCountCharacters) {
  ExpectExpressions({{"'abcb'.find('b')", "1"},
                     {"'abc'.find('x')", "-1"},
                     {"'h\\u00e4b'.find('b')", "2"},
                     {"'abc'.index('c')", "2"},
                     {"'abc'.find('')", "0"},
                     {"'abc'.find('abc')", "0"}});
}

TEST(Methods, CountDoesNotOverlap) {
  ExpectExpressions({{"'abab'.count('ab')", "2"},
                     {"'aaa'.count('aa')", "1"},
                     {"'abc'.count('x')", "0"},
                     {"'abcabc'.count('c')", "2"},
                     {"'aaaa'.count('aa')", "2"}});
}

TEST(Methods, IsdigitAndItsLikeWantACharacter) {
  ExpectExpressions({{"'123'.isdigit()", "True"},
                     {"'12a'.isdigit()", "False"},
                     {"''.isdigit()", "False"},
                     {"'123'.isnumeric()", "True"},
                     {"'1.2'.isdecimal()", "False"},
                     {"'09'.isdecimal()", "True"},
                     {"'/'.isdigit()", "False"},
                     {"':'.isdigit()", "False"}});
}

TEST(Methods, IsspaceKnowsBlanks) {
  ExpectExpressions({{"' \\t\\n\\r\\f\\v'.isspace()", "True"},
                     {"' a'.isspace()", "False"},
                     {"''.isspace()", "False"},
                     {"'\\x08'.isspace()", "False"},
                     {"'\\x0e'.isspace()", "False"},
                     {"'\\t'.isspace()", "True"},
                     {"'\\r'.isspace()", "True"}});
}

TEST(Methods, PrefixesAndSuffixesAreRemovedOnce) {
  ExpectExpressions({{"'abcab'.removeprefix('ab')", "cab"},
                     {"'abcab'.removesuffix('ab')", "abc"},
                     {"'abc'.removeprefix('x')", "abc"},
                     {"'abc'.removesuffix('x')", "abc"},
                     {"'abc'.removeprefix('abc')", ""}});
}

TEST(Methods, JoinPutsItselfBetween) {
  ExpectExpressions({{"','.join(['a', 'b'])", "a,b"},
                     {"''.join(['a', 'b'])", "ab"},
                     {"', '.join([])", ""},
                     {"'-'.join('abc')", "a-b-c"}});
}

TEST(Methods, CaseAndReplaceAreFilters) {
  ExpectExpressions({{"'aBc'.upper()", "ABC"},
                     {"'aBc'.lower()", "abc"},
                     {"'hello world'.title()", "Hello World"},
                     {"'hELLO'.capitalize()", "Hello"},
                     {"'banana'.replace('a', 'o')", "bonono"},
                     {"'banana'.replace('a', 'o', 1)", "bonana"},
                     {"'abc'.replace('', '-')", "-a-b-c-"},
                     {"'abc'.replace('', '-', 2)", "-a-bc"},
                     {"'abc'.replace('', '-', -1)", "-a-b-c-"}});
}

TEST(Methods, DictsGiveKeysValuesAndDefaults) {
  ExpectExpressions({{"{'a': 1}.get('a')", "1"},
                     {"{'a': 1}.get('x')", "None"},
                     {"{'a': 1}.get('x', 'd')", "d"},
                     {"{'b': 1, 'a': 2}.keys() | list", "['b', 'a']"},
                     {"{'b': 1, 'a': 2}.values() | list", "[1, 2]"},
                     {"{'b': 1}.items() | list", "[('b', 1)]"},
                     {"{'a': none}.get('a', 1)", "None"},
                     {"{1: 2}.get(1)", "2"}});
}

TEST(Methods, ListsCountAndIndex) {
  ExpectExpressions({{"[1, 2, 1].count(1)", "2"},
                     {"[1, 2].index(2)", "1"},
                     {"['a'].count('b')", "0"},
                     {"[3, 1, 1].index(1)", "1"},
                     {"(1, 2, 2).count(2)", "2"}});
}

}  // namespace
}  // namespace thermocline
