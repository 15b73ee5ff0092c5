// The evaluator: walks the syntax tree and writes text, inside budgets.
//
// Templates come with models, so they are untrusted: steps, output, memory made by string
// operations, and call depth are all bounded, and nothing reaches outside but the values given.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_INTERPRETER_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_INTERPRETER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/text/template/ast.h"
#include "engine/text/template/value.h"

namespace thermocline::jinja {

struct Budget {
  int64_t steps = 2'000'000;  // nodes evaluated and elements touched
  int64_t output_bytes = int64_t{64} << 20;
  int64_t memory_bytes = int64_t{512} << 20;  // bytes of all strings and lists ever made
  int call_depth = 64;
  double seconds = 10.0;  // of the clock, for what steps do not weigh right
};

class Interpreter {
 public:
  Interpreter(Budget budget, std::map<std::string, Value> globals);

  // INVALID_ARGUMENT: the template raised an exception or used a value wrongly; RESOURCE_EXHAUSTED:
  // a budget ran out.
  absl::StatusOr<std::string> Render(const Body& body);

  // ---- for filters, methods and functions ----

  // Keeps the first error and returns undefined.
  Value Fail(absl::string_view message);
  bool ok() const { return status_.ok(); }
  // Charges work before it is done; false once a budget is exceeded.
  bool ChargeSteps(int64_t steps);
  bool ChargeMemory(int64_t bytes);
  Value Call(const Value& function, const Arguments& arguments);
  Value Attribute(const Value& object, const Value& key);
  // Elements of a list, keys of a dict, characters of a string; fails for anything else.
  List Iterate(const Value& value);

 private:
  using Scope = std::map<std::string, Value>;
  enum class Flow { kNormal, kBreak, kContinue };
  class DepthGuard;
  class EvaluationGuard;

  Flow Run(const Body& body);
  Flow RunStatement(const Stmt& stmt);
  Flow RunFor(const Stmt& stmt, const Value& items, int depth);
  void RunSet(const Stmt& stmt);
  void Assign(const std::vector<ExprPtr>& targets, const Value& value);
  Value MakeMacro(const Stmt& stmt);
  // Runs the body with its output captured.
  std::string Capture(const Body& body);
  void Write(absl::string_view text);

  Value Evaluate(const Expr& expr);
  Value EvaluateName(const std::string& name);
  Value EvaluateCall(const Expr& expr);
  Value EvaluateFilter(const Expr& expr, const Value* input);
  Value EvaluateSlice(const Expr& expr);
  Value EvaluateCompare(const Expr& expr);
  Value EvaluateBinary(const Expr& expr);
  Arguments EvaluateArguments(const Expr& expr);
  bool Contains(const Value& container, const Value& item);

  Budget budget_;
  Scope globals_;
  std::vector<Scope> scopes_;
  std::string output_;
  std::chrono::steady_clock::time_point deadline_;
  int64_t steps_to_clock_ = 0;  // until the clock is looked at again
  int depth_ = 0;
  int evaluation_depth_ = 0;
  absl::Status status_;
};

// Python's binary operators and order, used by the evaluator and by filters.
Value Arithmetic(Interpreter* in, absl::string_view op, const Value& a, const Value& b);
// a < b; fails for values without an order.
bool Less(Interpreter* in, const Value& a, const Value& b);

// Methods of strings, lists and dicts as callables; undefined when there is none of that name.
Value FindMethod(const Value& object, absl::string_view name);
// Applies a filter or test by name; fails for an unknown one.
Value ApplyFilter(Interpreter* in, absl::string_view name, const Value& input,
                  const Arguments& arguments);
Value ApplyTest(Interpreter* in, absl::string_view name, const Value& input,
                const Arguments& arguments);
// range, dict, namespace, raise_exception, strftime_now, and such.
std::map<std::string, Value> BuiltinGlobals();

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_INTERPRETER_H_
