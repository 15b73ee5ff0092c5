#include "engine/text/template/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace thermocline::jinja {
namespace {

constexpr int kMaxPrintDepth = 1000;  // deeper than any value the interpreter lets exist

void AppendJsonString(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (char c : text) {
    switch (c) {
      case '"':
        out->append("\\\"");
        break;
      case '\\':
        out->append("\\\\");
        break;
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      case '\b':
        out->append("\\b");
        break;
      case '\f':
        out->append("\\f");
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          constexpr char kHex[] = "0123456789abcdef";
          out->append("\\u00");
          out->push_back(kHex[(c >> 4) & 15]);
          out->push_back(kHex[c & 15]);
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

void AppendStringRepr(absl::string_view text, std::string* out) {
  const bool use_double =
      text.find('\'') != absl::string_view::npos && text.find('"') == absl::string_view::npos;
  const char quote = use_double ? '"' : '\'';
  out->push_back(quote);
  for (char c : text) {
    switch (c) {
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      case '\\':
        out->append("\\\\");
        break;
      default:
        if (c == quote) out->push_back('\\');
        out->push_back(c);
    }
  }
  out->push_back(quote);
}

}  // namespace

const Value* Arguments::Find(size_t n, absl::string_view name) const {
  if (n < positional.size()) return &positional[n];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Value::Shape::Absorb(const Value& child) {
  depth = std::max(depth, child.depth() + 1);
  nodes = std::min(nodes + child.weight(), int64_t{1} << 60);
  holds_namespace = holds_namespace || child.holds_namespace();
}

const Value::Shape* Value::shape() const {
  if (is_list()) return &std::get<ListRef>(data_).shape;
  if (is_dict()) return &std::get<DictRef>(data_)->shape;
  return is_function() ? &std::get<FunctionRef>(data_).shape : nullptr;
}

int Value::depth() const { return shape() != nullptr ? shape()->depth : 0; }

int64_t Value::weight() const {
  if (is_string()) return 1 + static_cast<int64_t>(string().size() / 32);
  return shape() != nullptr ? shape()->nodes : 1;
}

bool Value::holds_namespace() const { return shape() != nullptr && shape()->holds_namespace; }

Value Value::MakeList(List items, bool tuple) {
  ListRef ref;
  for (const Value& item : items) ref.shape.Absorb(item);
  ref.items = std::make_shared<List>(std::move(items));
  ref.tuple = tuple;
  Value v;
  v.data_ = std::move(ref);
  return v;
}

Value Value::MakeDict(Dict items) {
  auto box = std::make_shared<DictBox>();
  for (const auto& [key, value] : items) box->shape.Absorb(value);
  box->items = std::move(items);
  Value v;
  v.data_ = std::move(box);
  return v;
}

Value Value::MakeNamespace(Dict items) {
  Value v = MakeDict(std::move(items));
  std::get<DictRef>(v.data_)->is_namespace = true;
  std::get<DictRef>(v.data_)->shape.holds_namespace = true;
  return v;
}

Value Value::MakeFunction(Function function, const Value* bound) {
  FunctionRef ref{std::make_shared<Function>(std::move(function)), {}};
  if (bound != nullptr) ref.shape.Absorb(*bound);
  Value v;
  v.data_ = std::move(ref);
  return v;
}

Value Value::FromJson(const nlohmann::ordered_json& json) {
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX)
    return Value(json.get<double>());
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number()) return Value(json.get<double>());
  if (json.is_string()) return Value(json.get<std::string>());
  if (json.is_array()) {
    List items;
    for (const auto& item : json) items.push_back(FromJson(item));
    return MakeList(std::move(items));
  }
  if (json.is_object()) {
    Dict items;
    for (const auto& [key, value] : json.items()) items.emplace_back(Value(key), FromJson(value));
    return MakeDict(std::move(items));
  }
  return Value(None{});
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool() || is_int()) return integer() != 0;
  if (is_double()) return number() != 0.0;
  if (is_string()) return !string().empty();
  if (is_list()) return !list().empty();
  if (is_dict()) return is_namespace() || !dict().empty();
  return true;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool fixed = magnitude == 0.0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, end.ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string Value::Str() const {
  if (is_string()) return string();
  return Repr();
}

std::string Value::Repr() const {
  std::string out;
  AppendRepr(0, &out);
  return out;
}

void Value::AppendRepr(int depth, std::string* out) const {
  if (depth > kMaxPrintDepth) {
    out->append("...");
  } else if (is_undefined()) {
    // Undefined prints as nothing.
  } else if (is_none()) {
    out->append("None");
  } else if (is_bool()) {
    out->append(integer() != 0 ? "True" : "False");
  } else if (is_int()) {
    absl::StrAppend(out, integer());
  } else if (is_double()) {
    out->append(FloatRepr(number()));
  } else if (is_string()) {
    AppendStringRepr(string(), out);
  } else if (is_list()) {
    out->push_back(is_tuple() ? '(' : '[');
    for (size_t i = 0; i < list().size(); ++i) {
      if (i > 0) out->append(", ");
      list()[i].AppendRepr(depth + 1, out);
    }
    if (is_tuple() && list().size() == 1) out->push_back(',');
    out->push_back(is_tuple() ? ')' : ']');
  } else if (is_dict()) {
    out->push_back('{');
    for (size_t i = 0; i < dict().size(); ++i) {
      if (i > 0) out->append(", ");
      dict()[i].first.AppendRepr(depth + 1, out);
      out->append(": ");
      dict()[i].second.AppendRepr(depth + 1, out);
    }
    out->push_back('}');
  } else {
    out->append("<function>");
  }
}

std::string Value::ToJson(int indent, bool sort_keys) const {
  std::string out;
  AppendJson(indent, sort_keys, 0, &out);
  return out;
}

void Value::AppendJson(int indent, bool sort_keys, int depth, std::string* out) const {
  const auto new_line = [&](int level) {
    if (indent < 0) return;
    out->push_back('\n');
    out->append(static_cast<size_t>(indent * level), ' ');
  };
  const char* separator = indent < 0 ? ", " : ",";
  if (depth > kMaxPrintDepth || is_none() || is_undefined() || is_function()) {
    out->append("null");
  } else if (is_bool()) {
    out->append(integer() != 0 ? "true" : "false");
  } else if (is_int()) {
    absl::StrAppend(out, integer());
  } else if (is_double()) {
    const std::string text = FloatRepr(number());
    out->append(text == "nan"    ? "NaN"
                : text == "inf"  ? "Infinity"
                : text == "-inf" ? "-Infinity"
                                 : text);
  } else if (is_string()) {
    AppendJsonString(string(), out);
  } else if (is_list()) {
    if (list().empty()) return void(out->append("[]"));
    out->push_back('[');
    for (size_t i = 0; i < list().size(); ++i) {
      if (i > 0) out->append(separator);
      new_line(depth + 1);
      list()[i].AppendJson(indent, sort_keys, depth + 1, out);
    }
    new_line(depth);
    out->push_back(']');
  } else {
    if (dict().empty()) return void(out->append("{}"));
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict()) entries.push_back(&entry);
    if (sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
        return a->first.Str() < b->first.Str();
      });
    }
    out->push_back('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out->append(separator);
      new_line(depth + 1);
      AppendJsonString(entries[i]->first.Str(), out);
      out->append(": ");
      entries[i]->second.AppendJson(indent, sort_keys, depth + 1, out);
    }
    new_line(depth);
    out->push_back('}');
  }
}

const Value* Value::Get(const Value& key) const {
  if (!is_dict()) return nullptr;
  for (const auto& [k, v] : dict()) {
    if (k.Equals(key)) return &v;
  }
  return nullptr;
}

void Value::Set(const Value& key, Value value) const {
  std::get<DictRef>(data_)->shape.Absorb(value);
  for (auto& [k, v] : dict()) {
    if (k.Equals(key)) {
      v = std::move(value);
      return;
    }
  }
  dict().emplace_back(key, std::move(value));
}

bool Value::Equals(const Value& other) const {
  if (is_number() && other.is_number()) {
    return is_double() || other.is_double() ? number() == other.number()
                                            : integer() == other.integer();
  }
  if (is_string() && other.is_string()) return string() == other.string();
  if (is_none() || other.is_none()) return is_none() && other.is_none();
  if (is_undefined() || other.is_undefined()) return is_undefined() && other.is_undefined();
  if (is_list() && other.is_list()) {
    if (&list() == &other.list()) return true;
    return std::equal(list().begin(), list().end(), other.list().begin(), other.list().end(),
                      [](const Value& a, const Value& b) { return a.Equals(b); });
  }
  if (is_dict() && other.is_dict()) {
    if (&dict() == &other.dict()) return true;
    if (dict().size() != other.dict().size()) return false;
    return std::all_of(dict().begin(), dict().end(), [&](const auto& entry) {
      const Value* found = other.Get(entry.first);
      return found != nullptr && found->Equals(entry.second);
    });
  }
  return false;
}

const char* Value::TypeName() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_double()) return "float";
  if (is_string()) return "str";
  if (is_list()) return is_tuple() ? "tuple" : "list";
  if (is_dict()) return is_namespace() ? "namespace" : "dict";
  return "function";
}

std::vector<size_t> CharacterOffsets(absl::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.size());
  return offsets;
}

}  // namespace thermocline::jinja
