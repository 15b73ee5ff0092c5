#include "engine/text/template/interpreter.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace thermocline::jinja {

// Values are compared, printed and destroyed by recursion.
static constexpr int kMaxValueDepth = 400;
// Each level takes about 1 KiB of stack.
static constexpr int kMaxEvaluationDepth = 2000;

Interpreter::Interpreter(Budget budget, std::map<std::string, Value> globals)
    : budget_(budget),
      globals_(std::move(globals)),
      deadline_(std::chrono::steady_clock::now() +
                std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                    std::chrono::duration<double>(budget.seconds))) {}

absl::StatusOr<std::string> Interpreter::Render(const Body& body) {
  scopes_.assign(1, {});
  output_.clear();
  Run(body);
  if (!ok()) return status_;
  return std::move(output_);
}

Value Interpreter::Fail(absl::string_view message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  return Value();
}

bool Interpreter::ChargeSteps(int64_t steps) {
  constexpr int64_t kStepsPerClock = 4096;
  budget_.steps -= steps;
  if (budget_.steps < 0 && status_.ok()) {
    status_ = absl::ResourceExhaustedError("the chat template takes too many steps");
  }
  steps_to_clock_ -= steps;
  if (steps_to_clock_ < 0) {
    steps_to_clock_ = kStepsPerClock;
    if (std::chrono::steady_clock::now() > deadline_ && status_.ok())
      status_ = absl::ResourceExhaustedError("the chat template takes too long");
  }
  return status_.ok();
}

bool Interpreter::ChargeMemory(int64_t bytes) {
  budget_.memory_bytes -= bytes;
  if (budget_.memory_bytes < 0 && status_.ok()) {
    status_ = absl::ResourceExhaustedError("the chat template needs too much memory");
  }
  return status_.ok();
}

// Counts calls in progress: macros may call themselves.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter* in) : in_(in) {
    if (++in_->depth_ > in_->budget_.call_depth && in_->status_.ok()) {
      in_->status_ = absl::ResourceExhaustedError("the chat template calls too deeply");
    }
  }
  ~DepthGuard() { --in_->depth_; }

 private:
  Interpreter* in_;
};

// Counts expressions in progress, across macros: the native stack is finite.
class Interpreter::EvaluationGuard {
 public:
  explicit EvaluationGuard(Interpreter* in) : in_(in) {
    if (++in_->evaluation_depth_ > kMaxEvaluationDepth && in_->status_.ok()) {
      in_->status_ = absl::ResourceExhaustedError("the chat template nests expressions too deeply");
    }
  }
  ~EvaluationGuard() { --in_->evaluation_depth_; }

 private:
  Interpreter* in_;
};

void Interpreter::Write(absl::string_view text) {
  if (static_cast<int64_t>(output_.size() + text.size()) > budget_.output_bytes) {
    if (status_.ok()) status_ = absl::ResourceExhaustedError("the chat template writes too much");
    return;
  }
  output_.append(text.data(), text.size());
}

std::string Interpreter::Capture(const Body& body) {
  std::string outer;
  outer.swap(output_);
  Run(body);
  outer.swap(output_);
  ChargeMemory(static_cast<int64_t>(outer.size()));
  return outer;
}

Interpreter::Flow Interpreter::Run(const Body& body) {
  for (const StmtPtr& stmt : body) {
    if (!ChargeSteps(1)) return Flow::kNormal;
    const Flow flow = RunStatement(*stmt);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::RunStatement(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kText:
      Write(stmt.text);
      return Flow::kNormal;
    case StmtKind::kOutput: {
      const Value value = Evaluate(*stmt.expr);
      if (ChargeSteps(value.weight())) Write(value.Str());
      return Flow::kNormal;
    }
    case StmtKind::kIf:
      return Run(Evaluate(*stmt.expr).Truthy() ? stmt.body : stmt.otherwise);
    case StmtKind::kFor:
      return RunFor(stmt, Evaluate(*stmt.expr), 0);
    case StmtKind::kSet:
      RunSet(stmt);
      return Flow::kNormal;
    case StmtKind::kMacro:
      scopes_.back()[stmt.text] = MakeMacro(stmt);
      return Flow::kNormal;
    case StmtKind::kCallBlock: {
      Arguments arguments = EvaluateArguments(*stmt.expr);
      arguments.named.emplace_back("caller", MakeMacro(stmt));
      Write(Call(Evaluate(*stmt.expr->children[0]), arguments).Str());
      return Flow::kNormal;
    }
    case StmtKind::kFilterBlock: {
      const Value text(Capture(stmt.body));
      Write(EvaluateFilter(*stmt.expr, &text).Str());
      return Flow::kNormal;
    }
    case StmtKind::kBlock:
      return Run(stmt.body);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::RunFor(const Stmt& stmt, const Value& iterable, int depth) {
  const DepthGuard guard(this);
  List items = Iterate(iterable);
  if (!ok()) return Flow::kNormal;
  if (stmt.condition != nullptr) {
    List kept;
    for (const Value& item : items) {
      scopes_.emplace_back();
      Assign(stmt.targets, item);
      if (Evaluate(*stmt.condition).Truthy()) kept.push_back(item);
      scopes_.pop_back();
      if (!ok()) return Flow::kNormal;
    }
    items = std::move(kept);
  }
  // "else" is for loops of which no pass came to its end.
  bool came_to_its_end = false;
  const int64_t count = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < count && ok(); ++i) {
    const size_t at = static_cast<size_t>(i);
    Dict loop = {
        {"index", i + 1},
        {"index0", i},
        {"first", i == 0},
        {"last", i + 1 == count},
        {"length", count},
        {"revindex", count - i},
        {"revindex0", count - i - 1},
        {"depth", depth + 1},
        {"depth0", depth},
        {"previtem", i > 0 ? items[at - 1] : Value::MakeUndefined("loop.previtem")},
        {"nextitem", i + 1 < count ? items[at + 1] : Value::MakeUndefined("loop.nextitem")},
        {"cycle", Value::MakeFunction([i](Interpreter* in, const Arguments& a) {
           if (a.positional.empty()) return in->Fail("loop.cycle needs values");
           return a.positional[static_cast<size_t>(i) % a.positional.size()];
         })}};
    scopes_.emplace_back();
    scopes_.back()["loop"] = Value::MakeDict(std::move(loop));
    if (stmt.recursive) {
      scopes_.back()["loop"].Set(
          "__call__", Value::MakeFunction([&stmt, depth](Interpreter* in, const Arguments& a) {
            if (a.positional.empty()) return in->Fail("loop() needs a list");
            std::string outer;
            outer.swap(in->output_);
            in->RunFor(stmt, a.positional[0], depth + 1);
            outer.swap(in->output_);
            return Value(std::move(outer));
          }));
    }
    Assign(stmt.targets, items[at]);
    const Flow flow = Run(stmt.body);
    scopes_.pop_back();
    came_to_its_end |= flow == Flow::kNormal;
    if (flow == Flow::kBreak) break;
  }
  return came_to_its_end ? Flow::kNormal : Run(stmt.otherwise);
}

void Interpreter::RunSet(const Stmt& stmt) {
  Assign(stmt.targets, stmt.expr != nullptr ? Evaluate(*stmt.expr) : Value(Capture(stmt.body)));
}

void Interpreter::Assign(const std::vector<ExprPtr>& targets, const Value& value) {
  if (!ok()) return;
  if (value.depth() > kMaxValueDepth) {
    Fail(absl::StrCat("a value is nested deeper than ", kMaxValueDepth, " levels"));
    return;
  }
  if (targets.size() > 1) {
    const List items = Iterate(value);
    if (ok() && items.size() != targets.size()) {
      Fail(absl::StrCat("cannot unpack ", items.size(), " values into ", targets.size(), " names"));
    }
    for (size_t i = 0; i < targets.size() && ok(); ++i) scopes_.back()[targets[i]->text] = items[i];
    return;
  }
  const Expr& target = *targets[0];
  if (target.kind == ExprKind::kName) {
    scopes_.back()[target.text] = value;
    return;
  }
  const Value object = Evaluate(*target.children[0]);
  if (!object.is_namespace()) {
    Fail(absl::StrCat("cannot set attribute \"", target.text, "\" of a ", object.TypeName(),
                      ": only namespaces allow it"));
    return;
  }
  if (value.holds_namespace()) {
    Fail("a namespace cannot be stored in a namespace");
    return;
  }
  object.Set(target.text, value);
}

Value Interpreter::MakeMacro(const Stmt& stmt) {
  return Value::MakeFunction([&stmt](Interpreter* in, const Arguments& arguments) {
    const DepthGuard guard(in);
    if (!in->ok()) return Value();
    Scope scope;
    for (size_t i = 0; i < stmt.parameters.size(); ++i) {
      const Parameter& parameter = stmt.parameters[i];
      const Value* given = arguments.Find(i, parameter.name);
      scope[parameter.name] = given != nullptr ? *given
                              : parameter.fallback != nullptr
                                  ? in->Evaluate(*parameter.fallback)
                                  : Value::MakeUndefined(parameter.name);
    }
    for (const auto& [name, value] : arguments.named) {
      if (name == "caller") scope[name] = value;
    }
    in->scopes_.push_back(std::move(scope));
    std::string text = in->Capture(stmt.body);
    in->scopes_.pop_back();
    return Value(std::move(text));
  });
}

Value Interpreter::Call(const Value& function, const Arguments& arguments) {
  if (!ok()) return Value();
  if (function.is_dict()) {
    if (const Value* call = function.Get("__call__")) {
      const Value target = *call;  // the call itself may change the dict
      return Call(target, arguments);
    }
  }
  if (!function.is_function())
    return Fail(absl::StrCat("a value of type ", function.TypeName(), " cannot be called"));
  const Value pinned = function;  // it may be reassigned while it runs
  return pinned.function()(this, arguments);
}

List Interpreter::Iterate(const Value& value) {
  List items;
  if (value.is_list()) {
    items = value.list();
  } else if (value.is_dict()) {
    for (const auto& [key, unused] : value.dict()) items.push_back(key);
  } else if (value.is_string()) {
    const std::vector<size_t> offsets = CharacterOffsets(value.string());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      items.emplace_back(value.string().substr(offsets[i], offsets[i + 1] - offsets[i]));
    }
  } else if (!value.is_undefined()) {  // iterating over undefined gives nothing
    Fail(absl::StrCat("a value of type ", value.TypeName(), " cannot be iterated over"));
  }
  ChargeSteps(static_cast<int64_t>(items.size()));
  ChargeMemory(static_cast<int64_t>(items.size() * sizeof(Value)));
  return items;
}

Value Interpreter::Evaluate(const Expr& expr) {
  if (!ChargeSteps(1)) return Value();
  const EvaluationGuard guard(this);
  if (!ok()) return Value();
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.literal;
    case ExprKind::kName:
      return EvaluateName(expr.text);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      List items;
      for (const ExprPtr& child : expr.children) items.push_back(Evaluate(*child));
      return Value::MakeList(std::move(items), expr.kind == ExprKind::kTuple);
    }
    case ExprKind::kDict: {
      Value dict = Value::MakeDict({});
      for (size_t i = 0; i + 1 < expr.children.size() && ChargeSteps(static_cast<int64_t>(i / 8));
           i += 2) {
        dict.Set(Evaluate(*expr.children[i]), Evaluate(*expr.children[i + 1]));
      }
      return dict;
    }
    case ExprKind::kAttribute:
      return Attribute(Evaluate(*expr.children[0]), Value(expr.text));
    case ExprKind::kSubscript: {
      const Value object = Evaluate(*expr.children[0]);
      return Attribute(object, Evaluate(*expr.children[1]));
    }
    case ExprKind::kSlice:
      return EvaluateSlice(expr);
    case ExprKind::kCall:
      return EvaluateCall(expr);
    case ExprKind::kFilter:
      return EvaluateFilter(expr, nullptr);
    case ExprKind::kTest: {
      const Value input = Evaluate(*expr.children[0]);
      const Arguments arguments = EvaluateArguments(expr);
      return ok() ? ApplyTest(this, expr.text, input, arguments) : Value();
    }
    case ExprKind::kUnary: {
      Value operand = Evaluate(*expr.children[0]);
      if (expr.text == "not") return !operand.Truthy();
      if (!operand.is_number())
        return ok() ? Fail(absl::StrCat("unary ", expr.text, " of a ", operand.TypeName()))
                    : Value();
      if (expr.text == "+") return operand;
      if (operand.is_double()) return -operand.number();  // 0 - 0.0 would lose the sign
      return Arithmetic(this, "-", Value(0), operand);
    }
    case ExprKind::kBinary:
      return EvaluateBinary(expr);
    case ExprKind::kCompare:
      return EvaluateCompare(expr);
    case ExprKind::kConditional:
      if (Evaluate(*expr.children[0]).Truthy()) return Evaluate(*expr.children[1]);
      return expr.children[2] != nullptr ? Evaluate(*expr.children[2]) : Value();
  }
  return Value();
}

Value Interpreter::EvaluateName(const std::string& name) {
  for (size_t i = scopes_.size(); i-- > 0;) {
    const auto it = scopes_[i].find(name);
    if (it != scopes_[i].end()) return it->second;
  }
  const auto it = globals_.find(name);
  return it != globals_.end() ? it->second : Value::MakeUndefined(name);
}

Value Interpreter::Attribute(const Value& object, const Value& key) {
  if (!ok()) return Value();
  if (object.is_undefined()) {
    return Fail(absl::StrCat("'", object.undefined_name(), "' is undefined, so it has no '",
                             key.Str(), "'"));
  }
  if (object.is_dict() && !ChargeSteps(static_cast<int64_t>(object.dict().size() / 8)))
    return Value();
  if (const Value* member = object.Get(key)) return *member;
  if (key.is_int() && (object.is_list() || object.is_string())) {
    if (object.is_string() && !ChargeSteps(static_cast<int64_t>(object.string().size() / 32)))
      return Value();
    const std::vector<size_t> offsets =
        object.is_string() ? CharacterOffsets(object.string()) : std::vector<size_t>();
    const int64_t size =
        static_cast<int64_t>(object.is_string() ? offsets.size() - 1 : object.list().size());
    const int64_t index = key.integer() < 0 ? key.integer() + size : key.integer();
    if (index < 0 || index >= size)
      return Value::MakeUndefined(absl::StrCat("element ", key.integer()));
    if (object.is_list()) return object.list()[static_cast<size_t>(index)];
    const size_t at = static_cast<size_t>(index);
    return Value(object.string().substr(offsets[at], offsets[at + 1] - offsets[at]));
  }
  if (key.is_string()) {
    Value method = FindMethod(object, key.string());
    if (!method.is_undefined()) return method;
  }
  return Value::MakeUndefined(key.Str());
}

Arguments Interpreter::EvaluateArguments(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.children.size(); ++i)
    arguments.positional.push_back(Evaluate(*expr.children[i]));
  for (const auto& [name, value] : expr.named) arguments.named.emplace_back(name, Evaluate(*value));
  return arguments;
}

Value Interpreter::EvaluateCall(const Expr& expr) {
  const Value function = Evaluate(*expr.children[0]);
  const Arguments arguments = EvaluateArguments(expr);
  if (!ok()) return Value();
  if (function.is_undefined())
    return Fail(absl::StrCat("'", function.undefined_name(), "' is undefined"));
  return Call(function, arguments);
}

Value Interpreter::EvaluateFilter(const Expr& expr, const Value* input) {
  // A filter block's innermost input is the block's text.
  const bool innermost = input != nullptr && expr.children[0]->kind != ExprKind::kFilter;
  const Value value = innermost          ? *input
                      : input != nullptr ? EvaluateFilter(*expr.children[0], input)
                                         : Evaluate(*expr.children[0]);
  const Arguments arguments = EvaluateArguments(expr);
  return ok() ? ApplyFilter(this, expr.text, value, arguments) : Value();
}

Value Interpreter::EvaluateSlice(const Expr& expr) {
  const Value object = Evaluate(*expr.children[0]);
  int64_t bounds[3] = {0, 0, 1};
  bool given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (expr.children[static_cast<size_t>(i) + 1] == nullptr) continue;
    const Value bound = Evaluate(*expr.children[static_cast<size_t>(i) + 1]);
    if (bound.is_none()) continue;
    if (!bound.is_int()) return ok() ? Fail("slice bounds must be whole numbers") : Value();
    bounds[i] = bound.integer();
    given[i] = true;
  }
  if (!ok()) return Value();
  if (!object.is_list() && !object.is_string())
    return Fail(absl::StrCat("a ", object.TypeName(), " cannot be sliced"));
  if (bounds[2] == 0) return Fail("a slice step of 0");
  const List items = Iterate(object);
  const int64_t size = static_cast<int64_t>(items.size()), step = bounds[2];
  // Source: PySlice_AdjustIndices of CPython.
  const auto clamp = [&](int64_t bound) {
    if (bound < 0) bound = std::max<int64_t>(bound, -size) + size - (bound < -size ? 1 : 0);
    return step > 0 ? std::clamp<int64_t>(bound, 0, size)
                    : std::clamp<int64_t>(bound, -1, size - 1);
  };
  const int64_t begin = given[0] ? clamp(bounds[0]) : step > 0 ? 0 : size - 1;
  const int64_t end = given[1] ? clamp(bounds[1]) : step > 0 ? size : -1;
  List picked;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    picked.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (object.is_list()) return Value::MakeList(std::move(picked), object.is_tuple());
  std::string text;
  for (const Value& character : picked) text += character.string();
  return Value(std::move(text));
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      Fail(absl::StrCat("\"in <string>\" needs a string, not a ", item.TypeName()));
      return false;
    }
    ChargeSteps(static_cast<int64_t>(container.string().size() / 32));
    return container.string().find(item.string()) != std::string::npos;
  }
  for (const Value& candidate : Iterate(container)) {
    if (candidate.Equals(item)) return true;
  }
  return false;
}

Value Interpreter::EvaluateCompare(const Expr& expr) {
  Value left = Evaluate(*expr.children[0]);
  for (size_t i = 0; i < expr.operators.size() && ok(); ++i) {
    const Value right = Evaluate(*expr.children[i + 1]);
    if (!ChargeSteps(left.weight() + right.weight())) return Value();
    const std::string& op = expr.operators[i];
    bool holds = false;
    if (op == "==") holds = left.Equals(right);
    if (op == "!=") holds = !left.Equals(right);
    if (op == "<") holds = Less(this, left, right);
    if (op == ">") holds = Less(this, right, left);
    if (op == "<=") holds = !Less(this, right, left);
    if (op == ">=") holds = !Less(this, left, right);
    if (op == "in") holds = Contains(right, left);
    if (op == "not in") holds = !Contains(right, left);
    if (!holds) return Value(false);
    left = right;
  }
  return Value(true);
}

Value Interpreter::EvaluateBinary(const Expr& expr) {
  const Value left = Evaluate(*expr.children[0]);
  if (expr.text == "and") return left.Truthy() ? Evaluate(*expr.children[1]) : left;
  if (expr.text == "or") return left.Truthy() ? left : Evaluate(*expr.children[1]);
  const Value right = Evaluate(*expr.children[1]);
  return ok() ? Arithmetic(this, expr.text, left, right) : Value();
}

bool Less(Interpreter* in, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_double() || b.is_double() ? a.number() < b.number() : a.integer() < b.integer();
  }
  if (a.is_string() && b.is_string()) return a.string() < b.string();
  if (a.is_list() && b.is_list()) {
    for (size_t i = 0; i < a.list().size() && i < b.list().size(); ++i) {
      if (!a.list()[i].Equals(b.list()[i])) return Less(in, a.list()[i], b.list()[i]);
    }
    return a.list().size() < b.list().size();
  }
  in->Fail(absl::StrCat("a ", a.TypeName(), " and a ", b.TypeName(), " have no order"));
  return false;
}

namespace {

// Repeats a string or list.
Value Repeat(Interpreter* in, const Value& what, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const int64_t size = static_cast<int64_t>(what.is_string() ? what.string().size()
                                                             : what.list().size() * sizeof(Value));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(std::max<int64_t>(size, 1), times, &bytes)) bytes = INT64_MAX / 2;
  if (!in->ChargeMemory(bytes) || !in->ChargeSteps(bytes / 64)) return Value();
  if (what.is_string()) {
    std::string text;
    for (int64_t i = 0; i < times && size > 0; ++i) text += what.string();
    return Value(std::move(text));
  }
  List items;
  for (int64_t i = 0; i < times && size > 0; ++i)
    items.insert(items.end(), what.list().begin(), what.list().end());
  return Value::MakeList(std::move(items), what.is_tuple());
}

Value IntegerArithmetic(Interpreter* in, absl::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (op == "//" || op == "%") {
    if (b == 0) return in->Fail("division by zero");
    if (b == -1) {
      overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      // Python rounds towards minus infinity.
      const int64_t quotient = a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
      result = op == "//" ? quotient : a - quotient * b;
    }
  } else {  // **
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = 1;
    for (int64_t i = 0; i < b && !overflow && in->ChargeSteps(1) && !(result == 0 || (a == 1));
         ++i) {
      overflow = __builtin_mul_overflow(result, a, &result);
    }
  }
  return overflow ? in->Fail("a whole number is too large") : Value(result);
}

}  // namespace

Value Arithmetic(Interpreter* in, absl::string_view op, const Value& a, const Value& b) {
  if (!in->ChargeSteps(a.weight() + b.weight())) return Value();
  if (op == "~") {
    std::string text = a.Str() + b.Str();
    return in->ChargeMemory(static_cast<int64_t>(text.size())) ? Value(std::move(text)) : Value();
  }
  if (a.is_number() && b.is_number()) {
    if (op != "/" && !a.is_double() && !b.is_double())
      return IntegerArithmetic(in, op, a.integer(), b.integer());
    const double x = a.number(), y = b.number();
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "**") return std::pow(x, y);
    if (y == 0.0) return in->Fail("division by zero");
    if (op == "/") return x / y;
    if (op == "//") return std::floor(x / y);
    return x - std::floor(x / y) * y;
  }
  if (op == "+" && a.is_string() && b.is_string()) {
    if (!in->ChargeMemory(static_cast<int64_t>(a.string().size() + b.string().size())))
      return Value();
    return a.string() + b.string();
  }
  if (op == "+" && a.is_list() && b.is_list()) {
    List items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    if (!in->ChargeMemory(static_cast<int64_t>(items.size() * sizeof(Value)))) return Value();
    return Value::MakeList(std::move(items), a.is_tuple());
  }
  if (op == "*" && (a.is_string() || a.is_list()) && b.is_int()) return Repeat(in, a, b.integer());
  if (op == "*" && (b.is_string() || b.is_list()) && a.is_int()) return Repeat(in, b, a.integer());
  if (op == "%" && a.is_string()) {
    Arguments arguments;
    arguments.positional = b.is_tuple() ? b.list() : List{b};
    return ApplyFilter(in, "format", a, arguments);
  }
  const bool undefined = a.is_undefined() || b.is_undefined();
  if (undefined)
    return in->Fail(
        absl::StrCat("'", (a.is_undefined() ? a : b).undefined_name(), "' is undefined"));
  return in->Fail(
      absl::StrCat("\"", op, "\" does not apply to a ", a.TypeName(), " and a ", b.TypeName()));
}

}  // namespace thermocline::jinja
