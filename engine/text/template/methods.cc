// Methods of strings, lists and dicts, and the global functions. Source: the Python language
// reference and Jinja2's sandbox.
#include <algorithm>
#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/template/interpreter.h"
#include "engine/text/template/text_functions.h"

namespace thermocline::jinja {
namespace {

std::string TextAt(const Arguments& a, size_t n, absl::string_view name,
                   absl::string_view fallback = "") {
  const Value* value = a.Find(n, name);
  return value != nullptr && value->is_string() ? value->string() : std::string(fallback);
}

int64_t IntAt(const Arguments& a, size_t n, absl::string_view name, int64_t fallback) {
  const Value* value = a.Find(n, name);
  return value != nullptr && value->is_int() ? value->integer() : fallback;
}

// str.split: at runs of white space without a separator, else at every separator.
Value Split(Interpreter* in, const std::string& text, const Arguments& a, bool from_right) {
  const Value* given = a.Find(0, "sep");
  const bool blanks = given == nullptr || given->is_none();
  const std::string separator = blanks ? "" : given->Str();
  if (!blanks && separator.empty()) return in->Fail("split by an empty separator");
  int64_t limit = IntAt(a, 1, "maxsplit", -1);
  List parts;
  if (!in->ChargeSteps(static_cast<int64_t>(text.size()) / 8) ||
      !in->ChargeMemory(static_cast<int64_t>(text.size()))) {
    return Value();
  }
  if (blanks && from_right && limit >= 0)
    return in->Fail("rsplit at white space with a limit is not supported");
  if (blanks) {
    constexpr absl::string_view kBlanks = " \t\n\r\f\v";
    const absl::string_view all = text;
    size_t begin = all.find_first_not_of(kBlanks);
    for (; begin != absl::string_view::npos; --limit) {
      if (!in->ChargeMemory(sizeof(Value) + 64)) return Value();
      // The last part is the whole rest.
      const size_t end =
          limit == 0 ? all.size() : std::min(all.find_first_of(kBlanks, begin), all.size());
      parts.emplace_back(all.substr(begin, end - begin));
      begin = all.find_first_not_of(kBlanks, end);
    }
  } else if (from_right) {
    size_t end = text.size();
    for (; limit != 0; --limit) {
      const size_t found = end < separator.size() ? std::string::npos
                                                  : text.rfind(separator, end - separator.size());
      if (found == std::string::npos) break;
      parts.emplace_back(text.substr(found + separator.size(), end - found - separator.size()));
      end = found;
    }
    parts.emplace_back(text.substr(0, end));
    std::reverse(parts.begin(), parts.end());
  } else {
    size_t begin = 0;
    for (; limit != 0; --limit) {
      const size_t found = text.find(separator, begin);
      if (found == std::string::npos || !in->ChargeMemory(sizeof(Value) + 64)) break;
      parts.emplace_back(text.substr(begin, found - begin));
      begin = found + separator.size();
    }
    parts.emplace_back(text.substr(begin));
  }
  return Value::MakeList(std::move(parts));
}

// startswith and endswith take a string or a tuple of them.
Value Affix(Interpreter* in, const std::string& text, const Arguments& a, bool at_start) {
  if (a.positional.empty()) return in->Fail("startswith needs an argument");
  const List candidates =
      a.positional[0].is_list() ? a.positional[0].list() : List{a.positional[0]};
  for (const Value& candidate : candidates) {
    if (!candidate.is_string()) return in->Fail("startswith needs a string");
    if (at_start ? absl::StartsWith(text, candidate.string())
                 : absl::EndsWith(text, candidate.string()))
      return true;
  }
  return false;
}

Value SplitLines(Interpreter* in, const std::string& text) {
  List lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = std::min(text.find_first_of("\r\n", begin), text.size());
    if (!in->ChargeMemory(sizeof(Value) + 64)) return Value();
    lines.emplace_back(text.substr(begin, newline - begin));
    begin = newline + (text.compare(newline, 2, "\r\n") == 0 ? 2 : 1);
  }
  return in->ChargeSteps(static_cast<int64_t>(lines.size())) ? Value::MakeList(std::move(lines))
                                                             : Value();
}

bool All(const std::string& text, bool (*holds)(char)) {
  return !text.empty() && std::all_of(text.begin(), text.end(), holds);
}

Value StringMethod(Interpreter* in, const std::string& text, const std::string& name,
                   const Arguments& a) {
  const Value self(text);
  if (!in->ChargeSteps(self.weight()) || !in->ChargeMemory(static_cast<int64_t>(text.size())))
    return Value();
  if (name == "strip") return Value(Strip(text, TextAt(a, 0, "chars"), Side::kBoth));
  if (name == "lstrip") return Value(Strip(text, TextAt(a, 0, "chars"), Side::kLeft));
  if (name == "rstrip") return Value(Strip(text, TextAt(a, 0, "chars"), Side::kRight));
  if (name == "split") return Split(in, text, a, false);
  if (name == "rsplit") return Split(in, text, a, true);
  if (name == "splitlines") return SplitLines(in, text);
  if (name == "startswith") return Affix(in, text, a, true);
  if (name == "endswith") return Affix(in, text, a, false);
  if (name == "find" || name == "index") {
    const size_t found = text.find(TextAt(a, 0, "sub"));
    if (found == std::string::npos)
      return name == "find" ? Value(-1) : in->Fail("substring not found");
    return Value(static_cast<int64_t>(
        CharacterOffsets(absl::string_view(text).substr(0, found)).size() - 1));
  }
  if (name == "count") {
    const std::string sub = TextAt(a, 0, "sub");
    int64_t count = 0;
    for (size_t at = sub.empty() ? std::string::npos : text.find(sub); at != std::string::npos;
         at = text.find(sub, at + sub.size()))
      ++count;
    return Value(count);
  }
  if (name == "isdigit" || name == "isnumeric" || name == "isdecimal") {
    return All(text, [](char c) { return c >= '0' && c <= '9'; });
  }
  if (name == "isspace")
    return All(text, [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); });
  if (name == "removeprefix" || name == "removesuffix") {
    absl::string_view rest = text;
    const std::string affix = TextAt(a, 0, "prefix");
    if (name == "removeprefix" && absl::StartsWith(rest, affix)) rest.remove_prefix(affix.size());
    if (name == "removesuffix" && absl::EndsWith(rest, affix)) rest.remove_suffix(affix.size());
    return Value(rest);
  }
  if (name == "join") {
    Arguments separator;
    separator.positional.push_back(self);
    return ApplyFilter(in, "join", a.positional.empty() ? Value::MakeList({}) : a.positional[0],
                       separator);
  }
  return ApplyFilter(in, name, self, a);  // upper, lower, title, capitalize, replace
}

constexpr absl::string_view kStringMethods[] = {
    "strip",      "lstrip",    "rstrip",  "split",        "rsplit",       "splitlines",
    "startswith", "endswith",  "find",    "index",        "count",        "isdigit",
    "isnumeric",  "isdecimal", "isspace", "removeprefix", "removesuffix", "join",
    "upper",      "lower",     "title",   "capitalize",   "replace"};

Value DictMethod(Interpreter* in, const Value& self, const std::string& name, const Arguments& a) {
  if (name == "get") {
    const Value* key = a.Find(0, "key");
    const Value* fallback = a.Find(1, "default");
    if (key == nullptr) return in->Fail("get needs a key");
    const Value* found = self.Get(*key);
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value(Value::None{});
  }
  if (name == "items") return ApplyFilter(in, "items", self, {});
  List items;
  for (const auto& [key, value] : self.dict()) items.push_back(name == "keys" ? key : value);
  return in->ChargeSteps(static_cast<int64_t>(items.size())) ? Value::MakeList(std::move(items))
                                                             : Value();
}

Value ListMethod(Interpreter* in, const Value& self, const std::string& name, const Arguments& a) {
  if (a.positional.empty()) return in->Fail(absl::StrCat(name, " needs an argument"));
  int64_t count = 0, index = 0;
  if (!in->ChargeSteps(static_cast<int64_t>(self.list().size()))) return Value();
  for (const Value& item : self.list()) {
    if (item.Equals(a.positional[0])) {
      if (name == "index") return Value(index);
      ++count;
    }
    ++index;
  }
  return name == "count" ? Value(count) : in->Fail("the value is not in the list");
}

Value Range(Interpreter* in, const Arguments& a) {
  int64_t begin = 0, end = 0, step = 1;
  for (const Value& value : a.positional) {
    if (!value.is_int()) return in->Fail("range needs whole numbers");
  }
  const size_t count = a.positional.size();
  if (count == 0 || count > 3) return in->Fail("range needs one to three arguments");
  end = a.positional[count == 1 ? 0 : 1].integer();
  if (count > 1) begin = a.positional[0].integer();
  if (count > 2) step = a.positional[2].integer();
  if (step == 0) return in->Fail("a range step of 0");
  List items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (!in->ChargeSteps(1) || !in->ChargeMemory(sizeof(Value))) return Value();
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::MakeList(std::move(items));
}

Value StrftimeNow(Interpreter* in, const Arguments& a) {
  const std::string format = TextAt(a, 0, "format");
  if (format.empty() || format.size() > 256) return in->Fail("strftime_now needs a short format");
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  char buffer[1024];
  return Value(std::string(buffer, std::strftime(buffer, sizeof(buffer), format.c_str(), &local)));
}

Value DictOf(const Arguments& a) {
  Value dict = Value::MakeDict({});
  if (!a.positional.empty() && a.positional[0].is_dict()) {
    for (const auto& [key, value] : a.positional[0].dict()) dict.Set(key, value);
  }
  for (const auto& [name, value] : a.named) dict.Set(name, value);
  return dict;
}

}  // namespace

Value FindMethod(const Value& object, absl::string_view name) {
  const std::string method(name);
  const auto bind =
      [&](Value (*call)(Interpreter*, const Value&, const std::string&, const Arguments&)) {
        return Value::MakeFunction(
            [object, method, call](Interpreter* in, const Arguments& a) {
              return call(in, object, method, a);
            },
            &object);
      };
  if (object.is_string() && std::find(std::begin(kStringMethods), std::end(kStringMethods), name) !=
                                std::end(kStringMethods)) {
    return bind([](Interpreter* in, const Value& self, const std::string& n, const Arguments& a) {
      return StringMethod(in, self.string(), n, a);
    });
  }
  if (object.is_dict() && (name == "get" || name == "items" || name == "keys" || name == "values"))
    return bind(&DictMethod);
  if (object.is_list() && (name == "index" || name == "count")) return bind(&ListMethod);
  return Value();
}

std::map<std::string, Value> BuiltinGlobals() {
  return {
      {"range", Value::MakeFunction(&Range)},
      {"dict", Value::MakeFunction([](Interpreter*, const Arguments& a) { return DictOf(a); })},
      {"namespace", Value::MakeFunction([](Interpreter*, const Arguments& a) {
         return Value::MakeNamespace(DictOf(a).dict());
       })},
      {"raise_exception", Value::MakeFunction([](Interpreter* in, const Arguments& a) {
         return in->Fail(a.positional.empty() ? "the chat template raised an exception"
                                              : a.positional[0].Str());
       })},
      {"strftime_now", Value::MakeFunction(&StrftimeNow)},
  };
}

}  // namespace thermocline::jinja
