// The syntax tree of a Jinja template.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_AST_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/template/value.h"

namespace thermocline::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kLiteral,      // literal
  kName,         // text
  kList,         // children
  kTuple,        // children
  kDict,         // children: key, value, key, value ...
  kAttribute,    // children[0] . text
  kSubscript,    // children[0] [ children[1] ]
  kSlice,        // children[0] [ children[1] : children[2] : children[3] ], null where left out
  kCall,         // children[0] ( children[1...], named )
  kFilter,       // children[0] | text ( children[1...], named )
  kTest,         // children[0] is text ( children[1...] )
  kUnary,        // text children[0]
  kBinary,       // children[0] text children[1]
  kCompare,      // children[0] operators[0] children[1] operators[1] ...
  kConditional,  // children[1] if children[0] else children[2] (may be null)
};

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  int height = 1;  // of the tree below, for the limit
  std::string text;
  Value literal;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

enum class StmtKind {
  kText,         // text
  kOutput,       // expr
  kIf,           // expr, body, otherwise
  kFor,          // targets in expr [if condition], body, otherwise
  kSet,          // targets (names, or one attribute) = expr; without expr: body
  kMacro,        // text ( parameters ), body
  kCallBlock,    // expr is a call whose caller() is body with `parameters`
  kFilterBlock,  // expr filters the body's output
  kBlock,        // body only
  kBreak,
  kContinue,
};

struct Parameter {
  std::string name;
  ExprPtr fallback;  // null: required or undefined
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  std::string text;
  ExprPtr expr;
  ExprPtr condition;
  std::vector<ExprPtr> targets;
  std::vector<Parameter> parameters;
  Body body;
  Body otherwise;
  bool recursive = false;
};

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_AST_H_
