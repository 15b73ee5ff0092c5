// Value: what a Jinja expression evaluates to.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_VALUE_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_VALUE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline::jinja {

class Value;
class Interpreter;

using List = std::vector<Value>;
// Keys are strings or whole numbers; insertion order is kept, as in Python.
using Dict = std::vector<std::pair<Value, Value>>;

// Arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The n-th positional argument or the named one; null when neither was given.
  const Value* Find(size_t n, absl::string_view name) const;
};
using Function = std::function<Value(Interpreter*, const Arguments&)>;

// Containers are shared references, as in Python: the shared_ptr is the language's own semantics.
class Value {
 public:
  struct Undefined {
    std::string name;  // for messages
  };
  struct None {};

  Value() : data_(Undefined{}) {}
  Value(None) : data_(None{}) {}  // NOLINT: implicit on purpose, values are written as literals
  Value(bool b) : data_(b) {}     // NOLINT
  Value(int64_t i) : data_(i) {}  // NOLINT
  Value(int i) : data_(static_cast<int64_t>(i)) {}                                    // NOLINT
  Value(double d) : data_(d) {}                                                       // NOLINT
  Value(std::string s) : data_(std::make_shared<const std::string>(std::move(s))) {}  // NOLINT
  Value(const char* s) : Value(std::string(s)) {}                                     // NOLINT
  Value(absl::string_view s) : Value(std::string(s)) {}                               // NOLINT
  static Value MakeList(List items, bool tuple = false);
  static Value MakeDict(Dict items);
  static Value MakeNamespace(Dict items);
  // `bound` is what the function holds on to (a method's object).
  static Value MakeFunction(Function function, const Value* bound = nullptr);
  static Value MakeUndefined(std::string name) {
    Value v;
    v.data_ = Undefined{std::move(name)};
    return v;
  }
  static Value FromJson(const nlohmann::ordered_json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_double() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_int() || is_double() || is_bool(); }
  bool is_string() const { return std::holds_alternative<StringRef>(data_); }
  bool is_list() const { return std::holds_alternative<ListRef>(data_); }
  bool is_dict() const { return std::holds_alternative<DictRef>(data_); }
  bool is_namespace() const { return is_dict() && std::get<DictRef>(data_)->is_namespace; }
  bool is_tuple() const { return is_list() && std::get<ListRef>(data_).tuple; }
  bool is_function() const { return std::holds_alternative<FunctionRef>(data_); }

  const std::string& string() const { return *std::get<StringRef>(data_); }
  List& list() const { return *std::get<ListRef>(data_).items; }
  Dict& dict() const { return std::get<DictRef>(data_)->items; }
  const Function& function() const { return *std::get<FunctionRef>(data_).function; }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  // Of an int or bool.
  int64_t integer() const { return is_bool() ? std::get<bool>(data_) : std::get<int64_t>(data_); }
  // Of any number.
  double number() const {
    return is_double() ? std::get<double>(data_) : static_cast<double>(integer());
  }

  bool Truthy() const;
  // Python's str() and repr().
  std::string Str() const;
  std::string Repr() const;
  // json.dumps: indent < 0 means one line with ", " and ": ".
  std::string ToJson(int indent, bool sort_keys) const;
  // The member of a dict; null if absent or not a dict.
  const Value* Get(const Value& key) const;
  void Set(const Value& key, Value value) const;  // dicts only

  bool Equals(const Value& other) const;
  const char* TypeName() const;
  // Levels of containers in the value; 0 for plain ones.
  int depth() const;
  // Work of walking over the value, in steps: its nodes, and the bytes of a string.
  int64_t weight() const;
  // True for namespaces and containers that hold one: storing such a value in a namespace could
  // make a cycle.
  bool holds_namespace() const;

 private:
  // Lists do not change once made; dicts and namespaces may grow, so their shape is shared with the
  // items.
  struct Shape {
    int depth = 1;      // levels of containers, this one included
    int64_t nodes = 1;  // values that a walk over this one visits; shared ones count every time
    bool holds_namespace = false;  // at any level below or here
    void Absorb(const Value& child);
  };
  struct ListRef {
    std::shared_ptr<List> items;
    bool tuple = false;
    Shape shape;
  };
  struct DictBox {
    Dict items;
    Shape shape;
    bool is_namespace = false;
  };
  using DictRef = std::shared_ptr<DictBox>;
  struct FunctionRef {
    std::shared_ptr<Function> function;
    Shape shape;
  };
  using StringRef = std::shared_ptr<const std::string>;

  void AppendRepr(int depth, std::string* out) const;
  void AppendJson(int indent, bool sort_keys, int depth, std::string* out) const;

  const Shape* shape() const;  // null for plain values

  std::variant<Undefined, None, bool, int64_t, double, StringRef, ListRef, DictRef, FunctionRef>
      data_;
};

// Python's repr of a float: the shortest digits that read back, "1.0" for whole numbers.
std::string FloatRepr(double value);
// Start offsets of the characters of a UTF-8 string, and its length at the end.
std::vector<size_t> CharacterOffsets(absl::string_view text);

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_VALUE_H_
