// White space around tags: trim_blocks, lstrip_blocks, "-" and "+".
// Expected texts are those of Jinja2 3.1 with trim_blocks, lstrip_blocks and loop controls, as
// transformers renders chat templates.
#include "tests/support/render.h"

namespace thermocline {
namespace {

TEST(WhiteSpace, RawBlocksStripAndTrimLikeOthers) {
  ExpectRendered(
      {{"{% raw -%}  x  {%- endraw %}|", "x|"},
       {"  {% raw %}x{% endraw %}\n  y", "x  y"},
       {"a\n  {% raw %}\n b {{ x }}\n  {% endraw %}\nc", "a\n\n b {{ x }}\nc"},
       {"a {%- raw %} b {% endraw -%}  \n  c", "a b c"},
       {"a  {%+ raw %} b\n  {%+ endraw %} c", "a   b\n   c"},
       {"  {%+ raw %}x\n\t{% endraw %}y", "  x\ny"},
       {"{% raw %}{% raw %}{% endraw %}", "{% raw %}"},
       {"{%raw%} {%x%} {%endraw%}\n{%raw%}y{%endraw%}\n  {%raw%}z{%endraw%}", " {%x%} yz"},
       {"{% raw -%}\n  {% endraw %}z", "z"}});
}

TEST(WhiteSpace, CommentsStripAndTrimLikeBlocks) {
  ExpectRendered({{"{# c #}\n  {% if true %}x{% endif %}", "x"},
                  {"{#-#}  x", "  x"},
                  {"a  {#- c #}  x", "a  x"},
                  {"a  {# c -#}  \n\n x", "a  x"},
                  {"a\n  {# c +#}\nx", "a\n\nx"},
                  {"a\n  {#+ c #}\nx", "a\n  x"},
                  {"a  {##}\nx", "a  x"},
                  {"{% if true %}\n  {# a #}\n  {# b #}\ny{% endif %}", "y"},
                  {" \t{# c #}x", "x"},
                  {"a\n\t{# c #}x", "a\nx"},
                  {"a \n {#- c #}x", "ax"},
                  {"{#{% if %}#}x", "x"},
                  {"{# {{ #}x{# }} #}", "x"},
                  {"{# a # } #}x", "x"},
                  {"{#\nmany\nlines\n#}x", "x"}});
}

TEST(WhiteSpace, BlocksTakeOneLineEndAndTheirIndentation) {
  ExpectRendered(
      {{"{{ 1 }}\n  {% if true %}z{% endif %}", "1\nz"},
       {"{{ 1 }}  {% if true %}z{% endif %}", "1  z"},
       {"{% if true -%}\n  x\n{%- endif %}", "x"},
       {"{% if true +%}\n  x\n  {%+ endif %}", "\n  x\n  "},
       {"  {%- if true %} a{% endif -%} b", " ab"},
       {"{% if true %}\n\nx{% endif %}", "\nx"},
       {"{% if true %} \nx{% endif %}", " \nx"},
       {"{% if true +%}\nx{% endif %}", "\nx"},
       {"{% if true -%}\n\n \t\014\013\rx{% endif %}", "x"},
       {"a\n \t {% if true %}x{% endif %}", "a\nx"},
       {"a \t{% if true %}x{% endif %}", "a \tx"},
       {"\t{% if true %}x{% endif %}", "x"},
       {"a\n \t{%+ if true %}x{% endif %}", "a\n \tx"},
       {"  {%+ if true %}x{% endif %}", "  x"},
       {"{% if true %}\n  {% if true %}\n  x\n  {% endif %}\n{% endif %}\ny", "  x\ny"},
       {"{% if true %}  {% if true %}x{% endif %}{% endif %}", "  x"},
       {"{% if true %}\n\t{{ 1 }}{% endif %}", "\t1"},
       {"a\n\n{%- if true %}x{% endif %}", "ax"},
       {"a \t\n\r\014\013{%- if true %}x{% endif %}", "ax"},
       {"  {%- if true -%}  x  {%- endif -%}  ", "x"},
       {"{% if true %}{% endif %}\n", ""},
       {"{% if '%}' == '%}' %}x{% endif %}", "x"},
       {"{%if true%}x{%endif%}", "x"},
       {"{%-if true-%} x {%-endif-%}", "x"},
       {"{%\n  if\ttrue\n%}x{% endif %}", "x"},
       {"{% set x = 1 %}\n{% set y = 2 %}\n{{ x }}{{ y }}", "12"},
       {"{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\nz", "  1\n  2\nz"},
       {"{% for i in [1,2] -%}\n  {{ i }}\n{%- endfor %}\nz", "12z"},
       {"{% for i in [1, 2] %}\n  {% if i == 1 %}\na\n  {% else %}\nb\n  {% endif %}\n{% endfor %}",
        "a\nb\n"}});
}

TEST(WhiteSpace, OutputsKeepWhatIsAroundThem) {
  ExpectRendered({{"  {{ 1 }}", "  1"},
                  {"x {{- 1 -}} y", "x1y"},
                  {"{{ 1 }}\nx", "1\nx"},
                  {"{{ 1 -}}\n\n x", "1x"},
                  {"a\n  {{- 1 }}", "a1"},
                  {"x\n", "x"},
                  {"x\n\n", "x\n"},
                  {"\n", ""},
                  {"", ""},
                  {"x \n", "x "},
                  {"{{ 1 }}\n", "1"},
                  {"{ {{ '{' }} } {x} {", "{ { } {x} {"},
                  {"a{", "a{"},
                  {"{}", "{}"},
                  {"{{ {'a': {}} }}", "{'a': {}}"},
                  {"{{ {'a': {'b': 1}}.a.b}}", "1"},
                  {"{{ {'a': [1]}['a'][0] }}", "1"},
                  {"{{'}}'}}{{ \"%}\" }}", "}}%}"},
                  {"{{1}}{{-2}}{{ - 2 }}", "12-2"},
                  {"{{-1-}} x", "1x"},
                  {"{{ 3-1 }}", "2"},
                  {"{{ 3 -1 }}", "2"}});
}

}  // namespace
}  // namespace thermocline
