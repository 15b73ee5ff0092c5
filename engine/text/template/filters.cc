// Filters and tests of Jinja. Source: filters.py and tests.py of Jinja2.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/text/template/interpreter.h"
#include "engine/text/template/text_functions.h"

namespace thermocline::jinja {
namespace {

using Filter = Value (*)(Interpreter*, const Value&, const Arguments&);

bool FlagOr(const Value* value, bool fallback) {
  return value != nullptr ? value->Truthy() : fallback;
}

int64_t IntOr(const Value* value, int64_t fallback) {
  return value != nullptr && (value->is_int() || value->is_bool()) ? value->integer() : fallback;
}

std::string TextOr(const Value* value, absl::string_view fallback) {
  return value != nullptr ? value->Str() : std::string(fallback);
}

Value Made(Interpreter* in, std::string text) {
  return in->ChargeMemory(static_cast<int64_t>(text.size())) ? Value(std::move(text)) : Value();
}

// "a.b.0" descends through attributes and elements, as the attribute arguments of filters do.
Value AttributePath(Interpreter* in, Value value, const Value& path) {
  if (path.is_int()) return in->Attribute(value, path);
  const std::string text = path.Str();
  size_t begin = 0;
  while (in->ok()) {
    const size_t dot = text.find('.', begin);
    const std::string part = text.substr(begin, dot == std::string::npos ? dot : dot - begin);
    int64_t index = 0;
    if (value.is_undefined()) return value;
    value = in->Attribute(value, absl::SimpleAtoi(part, &index) ? Value(index) : Value(part));
    if (dot == std::string::npos) break;
    begin = dot + 1;
  }
  return value;
}

Value Length(Interpreter* in, const Value& v, const Arguments&) {
  if (v.is_string()) {
    if (!in->ChargeSteps(static_cast<int64_t>(v.string().size() / 32))) return Value();
    return Value(static_cast<int64_t>(CharacterOffsets(v.string()).size() - 1));
  }
  if (v.is_list()) return Value(static_cast<int64_t>(v.list().size()));
  if (v.is_dict()) return Value(static_cast<int64_t>(v.dict().size()));
  if (v.is_undefined()) return Value(0);
  return in->Fail(absl::StrCat("a ", v.TypeName(), " has no length"));
}

Value Default(Interpreter*, const Value& v, const Arguments& a) {
  const Value* fallback = a.Find(0, "default_value");
  const bool use = v.is_undefined() || (FlagOr(a.Find(1, "boolean"), false) && !v.Truthy());
  return use ? (fallback != nullptr ? *fallback : Value("")) : v;
}

Value Join(Interpreter* in, const Value& v, const Arguments& a) {
  const std::string separator = TextOr(a.Find(0, "d"), "");
  const Value* attribute = a.Find(1, "attribute");
  std::string text;
  bool first = true;
  for (const Value& item : in->Iterate(v)) {
    if (!first) text += separator;
    first = false;
    text += (attribute != nullptr ? AttributePath(in, item, *attribute) : item).Str();
    if (!in->ChargeMemory(static_cast<int64_t>(separator.size()) + item.weight() * 32))
      return Value();
  }
  return Made(in, std::move(text));
}

Value ToJson(Interpreter* in, const Value& v, const Arguments& a) {
  if (v.is_undefined())
    return in->Fail(absl::StrCat("'", v.undefined_name(), "' is undefined: not JSON"));
  const Value* indent = a.Find(0, "indent");
  for (const auto& [name, value] : a.named) {
    if (name == "indent") indent = &value;
  }
  return Made(in, v.ToJson(indent != nullptr && indent->is_int()
                               ? static_cast<int>(std::clamp<int64_t>(indent->integer(), 0, 64))
                               : -1,
                           FlagOr(a.Find(9, "sort_keys"), false)));
}

Value ToInt(Interpreter*, const Value& v, const Arguments& a) {
  Value fallback = a.Find(0, "default") != nullptr ? *a.Find(0, "default") : Value(0);
  if (v.is_double()) {
    return std::fabs(v.number()) < 9e18 ? Value(static_cast<int64_t>(v.number())) : fallback;
  }
  if (v.is_number()) return Value(v.integer());
  int64_t i = 0;
  double d = 0.0;
  if (v.is_string() && absl::SimpleAtoi(v.string(), &i)) return Value(i);
  if (v.is_string() && absl::SimpleAtod(v.string(), &d) && std::fabs(d) < 9e18)
    return Value(static_cast<int64_t>(d));
  return fallback;
}

Value ToFloat(Interpreter*, const Value& v, const Arguments& a) {
  if (v.is_number()) return Value(v.number());
  double d = 0.0;
  if (v.is_string() && absl::SimpleAtod(v.string(), &d)) return Value(d);
  return a.Find(0, "default") != nullptr ? *a.Find(0, "default") : Value(0.0);
}

Value Items(Interpreter* in, const Value& v, const Arguments&) {
  List items;
  if (v.is_undefined()) return Value::MakeList({});
  if (!v.is_dict()) return in->Fail(absl::StrCat("items of a ", v.TypeName()));
  for (const auto& [key, value] : v.dict())
    items.push_back(Value::MakeList({key, value}, /*tuple=*/true));
  return in->ChargeSteps(static_cast<int64_t>(items.size())) ? Value::MakeList(std::move(items))
                                                             : Value();
}

// Sorts by keys that `key_of` makes; case folded unless told otherwise, as Jinja does.
Value Sorted(Interpreter* in, const List& items, bool reverse, bool case_sensitive,
             const std::function<Value(const Value&)>& key_of) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items) {
    Value key = key_of(item);
    if (key.is_string() && !case_sensitive) key = Value(Lower(key.string()));
    keyed.emplace_back(std::move(key), item);
  }
  const int64_t n = static_cast<int64_t>(keyed.size());
  if (!in->ChargeSteps(n * 16)) return Value();
  // Keys must be comparable before sort may rely on the order.
  for (size_t i = 1; i < keyed.size() && in->ok(); ++i) Less(in, keyed[0].first, keyed[i].first);
  if (!in->ok()) return Value();
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    return reverse ? Less(in, y.first, x.first) : Less(in, x.first, y.first);
  });
  List sorted;
  for (auto& [key, item] : keyed) sorted.push_back(std::move(item));
  return Value::MakeList(std::move(sorted));
}

Value Sort(Interpreter* in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Find(2, "attribute");
  return Sorted(in, in->Iterate(v), FlagOr(a.Find(0, "reverse"), false),
                FlagOr(a.Find(1, "case_sensitive"), false), [&](const Value& item) {
                  return attribute != nullptr ? AttributePath(in, item, *attribute) : item;
                });
}

Value DictSort(Interpreter* in, const Value& v, const Arguments& a) {
  const bool by_value = TextOr(a.Find(1, "by"), "key") == "value";
  const Value items = Items(in, v, {});
  if (!in->ok()) return Value();
  return Sorted(in, items.list(), FlagOr(a.Find(2, "reverse"), false),
                FlagOr(a.Find(0, "case_sensitive"), false),
                [&](const Value& pair) { return pair.list()[by_value ? 1 : 0]; });
}

Value Unique(Interpreter* in, const Value& v, const Arguments&) {
  List kept;
  for (const Value& item : in->Iterate(v)) {
    if (!in->ChargeSteps(static_cast<int64_t>(kept.size()))) return Value();
    const bool seen =
        std::any_of(kept.begin(), kept.end(), [&](const Value& k) { return k.Equals(item); });
    if (!seen) kept.push_back(item);
  }
  return Value::MakeList(std::move(kept));
}

Value Reverse(Interpreter* in, const Value& v, const Arguments&) {
  List items = in->Iterate(v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return Value::MakeList(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.string();
  return Value(std::move(text));
}

Value Map(Interpreter* in, const Value& v, const Arguments& a) {
  const Value* attribute = nullptr;
  const Value* fallback = nullptr;
  for (const auto& [name, value] : a.named) {
    if (name == "attribute") attribute = &value;
    if (name == "default") fallback = &value;
  }
  if (attribute == nullptr && a.positional.empty())
    return in->Fail("map needs a filter or an attribute");
  Arguments rest;
  if (attribute == nullptr) rest.positional.assign(a.positional.begin() + 1, a.positional.end());
  List mapped;
  if (!v.Truthy()) return Value::MakeList({});  // none and undefined count as empty here
  for (const Value& item : in->Iterate(v)) {
    Value result = attribute != nullptr ? AttributePath(in, item, *attribute)
                                        : ApplyFilter(in, a.positional[0].Str(), item, rest);
    if (result.is_undefined() && fallback != nullptr) result = *fallback;
    mapped.push_back(std::move(result));
    if (!in->ok()) return Value();
  }
  return Value::MakeList(std::move(mapped));
}

// select, reject, selectattr and rejectattr.
Value Select(Interpreter* in, const Value& v, const Arguments& a, bool by_attribute, bool wanted) {
  size_t next = 0;
  if (by_attribute && a.positional.empty()) return in->Fail("selectattr needs an attribute");
  const Value attribute = by_attribute ? a.positional[next++] : Value();
  const std::string test = next < a.positional.size() ? a.positional[next++].Str() : "";
  Arguments rest;
  rest.positional.assign(
      a.positional.begin() + static_cast<ptrdiff_t>(std::min(next, a.positional.size())),
      a.positional.end());
  List kept;
  if (!v.Truthy()) return Value::MakeList({});
  for (const Value& item : in->Iterate(v)) {
    const Value subject = by_attribute ? AttributePath(in, item, attribute) : item;
    const bool holds =
        test.empty() ? subject.Truthy() : ApplyTest(in, test, subject, rest).Truthy();
    if (!in->ok()) return Value();
    if (holds == wanted) kept.push_back(item);
  }
  return Value::MakeList(std::move(kept));
}

Value Indent(Interpreter* in, const Value& v, const Arguments& a) {
  const Value* width = a.Find(0, "width");
  const std::string prefix =
      width != nullptr && width->is_string()
          ? width->string()
          : std::string(static_cast<size_t>(std::clamp<int64_t>(IntOr(width, 4), 0, 1000)), ' ');
  const bool first = FlagOr(a.Find(1, "first"), false), blank = FlagOr(a.Find(2, "blank"), false);
  std::string text;
  const std::string source = v.Str();
  for (size_t begin = 0; begin <= source.size();) {
    const size_t newline = std::min(source.find('\n', begin), source.size());
    const bool empty = newline == begin;
    if ((begin > 0 || first) && (!empty || blank)) text += prefix;
    text.append(source, begin, newline - begin);
    if (newline < source.size()) text.push_back('\n');
    if (!in->ChargeMemory(static_cast<int64_t>(newline - begin + prefix.size()))) return Value();
    begin = newline + 1;
  }
  return Value(std::move(text));
}

Value Round(Interpreter* in, const Value& v, const Arguments& a) {
  if (!v.is_number()) return in->Fail("round of something that is not a number");
  const double scale = std::pow(
      10.0, static_cast<double>(std::clamp<int64_t>(IntOr(a.Find(0, "precision"), 0), -15, 15)));
  const std::string method = TextOr(a.Find(1, "method"), "common");
  const double x = v.number() * scale;
  return Value((method == "ceil"    ? std::ceil(x)
                : method == "floor" ? std::floor(x)
                                    : std::nearbyint(x)) /
               scale);
}

Value Extreme(Interpreter* in, const Value& v, bool largest) {
  const List items = in->Iterate(v);
  if (items.empty()) return Value();
  Value best = items[0];
  for (const Value& item : items) {
    if (largest ? Less(in, best, item) : Less(in, item, best)) best = item;
  }
  return best;
}

Value Sum(Interpreter* in, const Value& v, const Arguments& a) {
  const Value* attribute = a.Find(0, "attribute");
  const Value* start = a.Find(1, "start");
  Value total = start != nullptr ? *start : Value(0);
  for (const Value& item : in->Iterate(v)) {
    total = Arithmetic(in, "+", total,
                       attribute != nullptr ? AttributePath(in, item, *attribute) : item);
  }
  return total;
}

Value Batch(Interpreter* in, const Value& v, const Arguments& a) {
  const int64_t size = std::max<int64_t>(1, IntOr(a.Find(0, "linecount"), 1));
  List batches, current;
  for (const Value& item : in->Iterate(v)) {
    current.push_back(item);
    if (static_cast<int64_t>(current.size()) == size)
      batches.push_back(Value::MakeList(std::exchange(current, {})));
  }
  if (!current.empty()) batches.push_back(Value::MakeList(std::move(current)));
  return Value::MakeList(std::move(batches));
}

Value Escape(Interpreter* in, const Value& v, const Arguments&) {
  std::string text;
  for (char c : v.Str()) {
    switch (c) {
      case '&':
        text += "&amp;";
        break;
      case '<':
        text += "&lt;";
        break;
      case '>':
        text += "&gt;";
        break;
      case '"':
        text += "&#34;";
        break;
      case '\'':
        text += "&#39;";
        break;
      default:
        text.push_back(c);
    }
  }
  return Made(in, std::move(text));
}

// Python's % formatting with s, d, i, f, x and r, flags and widths.
Value Format(Interpreter* in, const Value& v, const Arguments& a) {
  const std::string format = v.Str();
  std::string text;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text.push_back(format[i]);
      continue;
    }
    const size_t begin = i++;
    while (i < format.size() &&
           absl::string_view("-+ 0#.123456789").find(format[i]) != absl::string_view::npos)
      ++i;
    if (i >= format.size() || i - begin > 8) return in->Fail("a bad format");
    const char kind = format[i];
    if (kind == '%') {
      text.push_back('%');
      continue;
    }
    if (next >= a.positional.size()) return in->Fail("not enough arguments for a format");
    const Value& value = a.positional[next++];
    std::string spec = format.substr(begin, i - begin);
    char buffer[512];
    if (kind == 's' || kind == 'r') {
      text += kind == 's' ? value.Str() : value.Repr();
    } else if (!value.is_number()) {
      return in->Fail("a format needs a number");
    } else if (kind == 'd' || kind == 'i' || kind == 'x' || kind == 'X') {
      const int64_t whole = value.is_double()
                                ? static_cast<int64_t>(std::clamp(value.number(), -9e18, 9e18))
                                : value.integer();
      spec += std::string("ll") + (kind == 'i' ? 'd' : kind);
      std::snprintf(buffer, sizeof(buffer), spec.c_str(), static_cast<long long>(whole));
      text += buffer;
    } else if (kind == 'f' || kind == 'e' || kind == 'g') {
      spec += kind;
      std::snprintf(buffer, sizeof(buffer), spec.c_str(), value.number());
      text += buffer;
    } else {
      return in->Fail(absl::StrCat("format %", std::string(1, kind), " is not supported"));
    }
    if (!in->ChargeMemory(static_cast<int64_t>(text.size()))) return Value();
  }
  return Value(std::move(text));
}

Value Replace(Interpreter* in, const Value& v, const Arguments& a) {
  const Value *from = a.Find(0, "old"), *to = a.Find(1, "new");
  if (from == nullptr || to == nullptr) return in->Fail("replace needs two arguments");
  const std::string text = v.Str(), old_text = from->Str(), new_text = to->Str();
  const int64_t hits =
      static_cast<int64_t>(old_text.empty() ? text.size() + 1 : text.size() / old_text.size());
  if (!in->ChargeMemory(static_cast<int64_t>(text.size())) ||
      hits * static_cast<int64_t>(new_text.size()) > (int64_t{1} << 30)) {
    return in->Fail("replace makes too large a text");
  }
  return Made(in, ReplaceAll(text, old_text, new_text, IntOr(a.Find(2, "count"), -1)));
}

Value First(Interpreter* in, const Value& v, const Arguments&) {
  return in->Attribute(Value::MakeList(in->Iterate(v)), Value(0));
}
Value Last(Interpreter* in, const Value& v, const Arguments&) {
  return in->Attribute(Value::MakeList(in->Iterate(v)), Value(-1));
}

Value Abs(Interpreter* in, const Value& v, const Arguments&) {
  if (!v.is_number()) return in->Fail("abs of something that is not a number");
  return v.is_double()     ? Value(std::fabs(v.number()))
         : v.integer() < 0 ? Arithmetic(in, "-", Value(0), v)
                           : v;
}

struct NamedFilter {
  absl::string_view name;
  Filter filter;
};

constexpr NamedFilter kFilters[] = {
    {"abs", &Abs},
    {"batch", &Batch},
    {"capitalize", [](Interpreter* in, const Value& v,
                      const Arguments&) { return Made(in, Capitalize(v.Str())); }},
    {"count", &Length},
    {"d", &Default},
    {"default", &Default},
    {"dictsort", &DictSort},
    {"e", &Escape},
    {"escape", &Escape},
    {"first", &First},
    {"float", &ToFloat},
    {"format", &Format},
    {"indent", &Indent},
    {"int", &ToInt},
    {"items", &Items},
    {"join", &Join},
    {"last", &Last},
    {"length", &Length},
    {"list", [](Interpreter* in, const Value& v,
                const Arguments&) { return Value::MakeList(in->Iterate(v)); }},
    {"lower",
     [](Interpreter* in, const Value& v, const Arguments&) { return Made(in, Lower(v.Str())); }},
    {"map", &Map},
    {"max", [](Interpreter* in, const Value& v, const Arguments&) { return Extreme(in, v, true); }},
    {"min",
     [](Interpreter* in, const Value& v, const Arguments&) { return Extreme(in, v, false); }},
    {"reject", [](Interpreter* in, const Value& v,
                  const Arguments& a) { return Select(in, v, a, false, false); }},
    {"rejectattr", [](Interpreter* in, const Value& v,
                      const Arguments& a) { return Select(in, v, a, true, false); }},
    {"replace", &Replace},
    {"reverse", &Reverse},
    {"round", &Round},
    {"safe", [](Interpreter*, const Value& v, const Arguments&) { return v; }},
    {"select", [](Interpreter* in, const Value& v,
                  const Arguments& a) { return Select(in, v, a, false, true); }},
    {"selectattr", [](Interpreter* in, const Value& v,
                      const Arguments& a) { return Select(in, v, a, true, true); }},
    {"sort", &Sort},
    {"string", [](Interpreter* in, const Value& v, const Arguments&) { return Made(in, v.Str()); }},
    {"sum", &Sum},
    {"title",
     [](Interpreter* in, const Value& v, const Arguments&) { return Made(in, Title(v.Str())); }},
    {"tojson", &ToJson},
    {"trim",
     [](Interpreter* in, const Value& v, const Arguments& a) {
       return Made(in, Strip(v.Str(), TextOr(a.Find(0, "chars"), ""), Side::kBoth));
     }},
    {"unique", &Unique},
    {"upper",
     [](Interpreter* in, const Value& v, const Arguments&) { return Made(in, Upper(v.Str())); }},
};

}  // namespace

Value ApplyFilter(Interpreter* in, absl::string_view name, const Value& input,
                  const Arguments& arguments) {
  int64_t weight = input.weight();
  for (const Value& argument : arguments.positional) weight += argument.weight();
  if (!in->ChargeSteps(weight)) return Value();
  for (const NamedFilter& named : kFilters) {
    if (named.name == name) return named.filter(in, input, arguments);
  }
  return in->Fail(absl::StrCat("filter \"", name, "\" is not supported"));
}

Value ApplyTest(Interpreter* in, absl::string_view name, const Value& v, const Arguments& a) {
  const Value* argument = a.Find(0, "");
  if (!in->ChargeSteps(1)) return Value();
  // Type tests look at the value only; the others may walk over it.
  if (argument != nullptr && !in->ChargeSteps(v.weight() + argument->weight())) return Value();
  const auto is = [name](std::initializer_list<absl::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (is({"defined"})) return !v.is_undefined();
  if (is({"undefined"})) return v.is_undefined();
  if (is({"none"})) return v.is_none();
  if (is({"string"})) return v.is_string();
  if (is({"boolean"})) return v.is_bool();
  if (is({"integer"})) return v.is_int();
  if (is({"float"})) return v.is_double();
  if (is({"number"})) return v.is_number();
  if (is({"true"})) return v.is_bool() && v.Truthy();
  if (is({"false"})) return v.is_bool() && !v.Truthy();
  if (is({"mapping"})) return v.is_dict();
  if (is({"sequence", "iterable"})) return v.is_list() || v.is_string() || v.is_dict();
  if (is({"callable"})) return v.is_function();
  if (is({"odd"})) return v.is_int() && v.integer() % 2 != 0;
  if (is({"even"})) return v.is_int() && v.integer() % 2 == 0;
  if (is({"lower"})) return v.is_string() && v.string() == Lower(v.string());
  if (is({"upper"})) return v.is_string() && v.string() == Upper(v.string());
  if (argument == nullptr)
    return in->Fail(absl::StrCat("test \"", name, "\" is not supported or lacks its argument"));
  if (is({"eq", "equalto", "==", "sameas"})) return v.Equals(*argument);
  if (is({"ne", "!="})) return !v.Equals(*argument);
  if (is({"lt", "lessthan", "<"})) return Less(in, v, *argument);
  if (is({"gt", "greaterthan", ">"})) return Less(in, *argument, v);
  if (is({"le", "<="})) return !Less(in, *argument, v);
  if (is({"ge", ">="})) return !Less(in, v, *argument);
  if (is({"divisibleby"})) {
    return v.is_int() && argument->is_int() && argument->integer() > 0 &&
           v.integer() % argument->integer() == 0;
  }
  if (is({"in"})) {
    if (argument->is_string())
      return v.is_string() && argument->string().find(v.string()) != std::string::npos;
    for (const Value& item : in->Iterate(*argument)) {
      if (item.Equals(v)) return true;
    }
    return false;
  }
  return in->Fail(absl::StrCat("test \"", name, "\" is not supported"));
}

}  // namespace thermocline::jinja
