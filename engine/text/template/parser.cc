#include "engine/text/template/parser.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/text/template/lexer.h"

namespace thermocline::jinja {
namespace {

// Errors are kept in status_; after one, parsing functions return null and the loops end.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() {
    Body body = ParseBody({});
    if (status_.ok() && peek().kind != TokenKind::kEnd) Fail("unexpected end of a block");
    if (!status_.ok()) return status_;
    return body;
  }

 private:
  // Counts the nesting of the calls in progress.
  class Nested {
   public:
    explicit Nested(Parser* parser) : parser_(parser) {
      if (++parser_->depth_ > kMaxNesting)
        parser_->Fail(absl::StrCat("nested deeper than ", kMaxNesting, " levels"));
    }
    ~Nested() { --parser_->depth_; }

   private:
    Parser* parser_;
  };

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  Token Take() {
    Token token = peek();
    if (next_ + 1 < tokens_.size()) ++next_;
    return token;
  }
  bool ok() const { return status_.ok(); }
  void Fail(absl::string_view what) {
    if (status_.ok())
      status_ = absl::InvalidArgumentError(absl::StrCat("template line ", peek().line, ": ", what));
  }
  bool IsOperator(absl::string_view op, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == op;
  }
  bool IsName(absl::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == name;
  }
  bool TakeOperator(absl::string_view op) {
    if (!IsOperator(op)) return false;
    Take();
    return true;
  }
  bool TakeName(absl::string_view name) {
    if (!IsName(name)) return false;
    Take();
    return true;
  }
  void Expect(absl::string_view op) {
    if (!TakeOperator(op)) Fail(absl::StrCat("\"", op, "\" expected, found \"", peek().text, "\""));
  }
  std::string ExpectName() {
    if (peek().kind != TokenKind::kName) {
      Fail(absl::StrCat("a name expected, found \"", peek().text, "\""));
      return "";
    }
    return Take().text;
  }
  void ExpectBlockEnd() {
    if (peek().kind != TokenKind::kBlockEnd) {
      Fail(absl::StrCat("\"%}\" expected, found \"", peek().text, "\""));
    } else {
      Take();
    }
  }

  // Trees are evaluated and destroyed by recursion, so their height is limited.
  void Measure(Expr* parent, const Expr* child) {
    if (child != nullptr) parent->height = std::max(parent->height, child->height + 1);
    if (parent->height > kMaxExprHeight)
      Fail(absl::StrCat("an expression of more than ", kMaxExprHeight, " levels"));
  }
  void AddChild(Expr* parent, ExprPtr child) {
    Measure(parent, child.get());
    parent->children.push_back(std::move(child));
  }

  ExprPtr NewExpr(ExprKind kind) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    return expr;
  }
  ExprPtr Literal(Value value) {
    ExprPtr expr = NewExpr(ExprKind::kLiteral);
    expr->literal = std::move(value);
    return expr;
  }
  ExprPtr Wrap(ExprKind kind, ExprPtr child, std::string text = "") {
    ExprPtr expr = NewExpr(kind);
    expr->text = std::move(text);
    AddChild(expr.get(), std::move(child));
    return expr;
  }

  // ---- statements ----

  // Up to, not including, a block whose keyword is in `ends`; the caller takes "{% keyword".
  Body ParseBody(const std::set<std::string>& ends) {
    Nested nested(this);
    Body body;
    while (ok() && peek().kind != TokenKind::kEnd) {
      auto stmt = std::make_unique<Stmt>();
      if (peek().kind == TokenKind::kText) {
        stmt->text = Take().text;
      } else if (peek().kind == TokenKind::kOutput) {
        Take();
        stmt->kind = StmtKind::kOutput;
        stmt->expr = ParseTuple(/*with_condition=*/true);
        if (peek().kind != TokenKind::kOutputEnd)
          Fail(absl::StrCat("\"}}\" expected, found \"", peek().text, "\""));
        Take();
      } else if (peek().kind == TokenKind::kBlock) {
        if (peek(1).kind == TokenKind::kName && ends.count(peek(1).text) > 0) return body;
        Take();
        ParseStatement(stmt.get());
      } else {
        Fail("unexpected token");
      }
      body.push_back(std::move(stmt));
    }
    if (!ends.empty()) Fail(absl::StrCat("\"", *ends.begin(), "\" is missing"));
    return body;
  }

  // The keyword that ended a ParseBody.
  std::string TakeEnd() {
    Take();  // {%
    return ExpectName();
  }

  void ParseStatement(Stmt* stmt) {
    const std::string keyword = ExpectName();
    if (keyword == "if") {
      ParseIf(stmt);
    } else if (keyword == "for") {
      ParseFor(stmt);
    } else if (keyword == "set") {
      ParseSet(stmt);
    } else if (keyword == "macro") {
      stmt->kind = StmtKind::kMacro;
      stmt->text = ExpectName();
      ParseParameters(stmt);
      FinishBlock(stmt, "endmacro");
    } else if (keyword == "call") {
      stmt->kind = StmtKind::kCallBlock;
      if (IsOperator("(")) ParseParameters(stmt);
      stmt->expr = ParseExpression();
      if (ok() && stmt->expr->kind != ExprKind::kCall) Fail("\"call\" needs a call");
      FinishBlock(stmt, "endcall");
    } else if (keyword == "filter") {
      stmt->kind = StmtKind::kFilterBlock;
      stmt->expr = ParseFilterChain(Literal(Value("")), /*first=*/true);
      for (const Expr* e = stmt->expr.get(); ok() && e->kind != ExprKind::kLiteral;
           e = e->children[0].get()) {
        if (e->kind != ExprKind::kFilter) Fail("\"filter\" needs filters only");
      }
      FinishBlock(stmt, "endfilter");
    } else if (keyword == "generation") {
      stmt->kind = StmtKind::kBlock;  // marks the assistant's text for training; prints as it is
      FinishBlock(stmt, "endgeneration");
    } else if (keyword == "break" || keyword == "continue") {
      stmt->kind = keyword == "break" ? StmtKind::kBreak : StmtKind::kContinue;
      ExpectBlockEnd();
    } else {
      Fail(absl::StrCat("unknown statement \"", keyword, "\""));
    }
  }

  void FinishBlock(Stmt* stmt, const std::string& end) {
    ExpectBlockEnd();
    stmt->body = ParseBody({end});
    if (!ok()) return;
    TakeEnd();
    if (peek().kind == TokenKind::kName) Take();  // {% endmacro name %}
    ExpectBlockEnd();
  }

  void ParseIf(Stmt* stmt) {
    Nested nested(this);
    stmt->kind = StmtKind::kIf;
    stmt->expr = ParseTuple(/*with_condition=*/true);
    ExpectBlockEnd();
    stmt->body = ParseBody({"elif", "else", "endif"});
    if (!ok()) return;
    const std::string end = TakeEnd();
    if (end == "elif") {
      auto inner = std::make_unique<Stmt>();
      ParseIf(inner.get());
      stmt->otherwise.push_back(std::move(inner));
      return;
    }
    ExpectBlockEnd();
    if (end == "endif") return;
    stmt->otherwise = ParseBody({"endif"});
    if (!ok()) return;
    TakeEnd();
    ExpectBlockEnd();
  }

  void ParseFor(Stmt* stmt) {
    stmt->kind = StmtKind::kFor;
    ParseTargets(stmt);
    if (!TakeName("in")) Fail("\"in\" expected");
    stmt->expr = ParseTuple(/*with_condition=*/false);
    if (TakeName("if")) stmt->condition = ParseExpression();
    stmt->recursive = TakeName("recursive");
    ExpectBlockEnd();
    stmt->body = ParseBody({"else", "endfor"});
    if (!ok()) return;
    if (TakeEnd() == "else") {
      ExpectBlockEnd();
      stmt->otherwise = ParseBody({"endfor"});
      if (!ok()) return;
      TakeEnd();
    }
    ExpectBlockEnd();
  }

  // Names, attributes of namespaces, or parenthesised lists of names.
  void ParseTargets(Stmt* stmt) {
    const bool parenthesised = TakeOperator("(");
    do {
      if (!ok()) return;
      ExprPtr target = NewExpr(ExprKind::kName);
      target->text = ExpectName();
      if (TakeOperator(".")) target = Wrap(ExprKind::kAttribute, std::move(target), ExpectName());
      stmt->targets.push_back(std::move(target));
    } while (TakeOperator(",") && peek().kind == TokenKind::kName && !IsName("in"));
    if (parenthesised) Expect(")");
  }

  void ParseSet(Stmt* stmt) {
    stmt->kind = StmtKind::kSet;
    ParseTargets(stmt);
    if (TakeOperator("=")) {
      stmt->expr = ParseTuple(/*with_condition=*/true);
      ExpectBlockEnd();
      return;
    }
    FinishBlock(stmt, "endset");
  }

  void ParseParameters(Stmt* stmt) {
    Expect("(");
    while (ok() && !IsOperator(")")) {
      Parameter parameter;
      parameter.name = ExpectName();
      if (TakeOperator("=")) parameter.fallback = ParseExpression();
      stmt->parameters.push_back(std::move(parameter));
      if (!TakeOperator(",")) break;
    }
    Expect(")");
  }

  // ---- expressions, loosest first ----

  // One expression, or several with commas between: a tuple.
  ExprPtr ParseTuple(bool with_condition) {
    ExprPtr first = with_condition ? ParseExpression() : ParseOr();
    if (!IsOperator(",")) return first;
    ExprPtr tuple = NewExpr(ExprKind::kTuple);
    AddChild(tuple.get(), std::move(first));
    while (ok() && TakeOperator(",")) {
      if (peek().kind == TokenKind::kOutputEnd || peek().kind == TokenKind::kBlockEnd) break;
      AddChild(tuple.get(), with_condition ? ParseExpression() : ParseOr());
    }
    return tuple;
  }

  ExprPtr ParseExpression() {
    Nested nested(this);
    if (!ok()) return nullptr;
    ExprPtr value = ParseOr();
    while (ok() && TakeName("if")) {
      ExprPtr conditional = NewExpr(ExprKind::kConditional);
      AddChild(conditional.get(), ParseOr());
      AddChild(conditional.get(), std::move(value));
      AddChild(conditional.get(), TakeName("else") ? ParseExpression() : nullptr);
      value = std::move(conditional);
    }
    return value;
  }

  ExprPtr Binary(std::string op, ExprPtr left, ExprPtr right) {
    ExprPtr expr = Wrap(ExprKind::kBinary, std::move(left), std::move(op));
    AddChild(expr.get(), std::move(right));
    return expr;
  }

  ExprPtr ParseOr() {
    ExprPtr left = ParseAnd();
    while (ok() && TakeName("or")) left = Binary("or", std::move(left), ParseAnd());
    return left;
  }

  ExprPtr ParseAnd() {
    ExprPtr left = ParseNot();
    while (ok() && TakeName("and")) left = Binary("and", std::move(left), ParseNot());
    return left;
  }

  ExprPtr ParseNot() {
    Nested nested(this);
    if (!ok()) return nullptr;
    if (IsName("not")) {
      Take();
      return Wrap(ExprKind::kUnary, ParseNot(), "not");
    }
    return ParseCompare();
  }

  ExprPtr ParseCompare() {
    ExprPtr first = ParseMath1();
    ExprPtr compare;
    while (ok()) {
      std::string op;
      for (absl::string_view candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (IsOperator(candidate)) op = std::string(candidate);
      }
      if (IsName("in")) op = "in";
      if (IsName("not") && IsName("in", 1)) op = "not in";
      if (op.empty()) break;
      Take();
      if (op == "not in") Take();
      if (compare == nullptr) compare = Wrap(ExprKind::kCompare, std::move(first));
      compare->operators.push_back(op);
      AddChild(compare.get(), ParseMath1());
    }
    return compare != nullptr ? std::move(compare) : std::move(first);
  }

  ExprPtr ParseMath1() {
    ExprPtr left = ParseConcat();
    while (ok() && (IsOperator("+") || IsOperator("-"))) {
      const std::string op = Take().text;
      left = Binary(op, std::move(left), ParseConcat());
    }
    return left;
  }

  ExprPtr ParseConcat() {
    ExprPtr left = ParseMath2();
    while (ok() && TakeOperator("~")) left = Binary("~", std::move(left), ParseMath2());
    return left;
  }

  ExprPtr ParseMath2() {
    ExprPtr left = ParseUnary(/*with_filter=*/true);
    while (ok() && (IsOperator("*") || IsOperator("/") || IsOperator("//") || IsOperator("%"))) {
      const std::string op = Take().text;
      left = Binary(op, std::move(left), ParseUnary(true));
    }
    return left;
  }

  ExprPtr ParseUnary(bool with_filter) {
    Nested nested(this);
    if (!ok()) return nullptr;
    ExprPtr expr;
    if (IsOperator("-") || IsOperator("+")) {
      const std::string op = Take().text;
      expr = Wrap(ExprKind::kUnary, ParseUnary(false), op);
    } else {
      expr = ParsePostfix(ParsePrimary());
      if (ok() && TakeOperator("**")) expr = Binary("**", std::move(expr), ParseUnary(false));
    }
    return with_filter ? ParseFilterChain(std::move(expr)) : std::move(expr);
  }

  // Filters and tests bind tighter than arithmetic.
  // In a filter block the first filter comes without "|".
  ExprPtr ParseFilterChain(ExprPtr expr, bool first = false) {
    while (ok() && (first || IsOperator("|") || IsName("is"))) {
      if (!first && IsName("is")) {
        expr = ParseTest(std::move(expr));
        continue;
      }
      if (!first) Take();
      first = false;
      expr = Wrap(ExprKind::kFilter, std::move(expr), ExpectName());
      if (IsOperator("(")) ParseCallArguments(expr.get());
      expr = ParsePostfix(std::move(expr));
    }
    return expr;
  }

  ExprPtr ParseTest(ExprPtr expr) {
    Take();  // is
    const bool negated = TakeName("not");
    ExprPtr test = Wrap(ExprKind::kTest, std::move(expr), ExpectName());
    if (IsOperator("(")) {
      ParseCallArguments(test.get());
    } else if (StartsOperand()) {
      AddChild(test.get(), ParsePostfix(ParsePrimary()));
    }
    return negated ? Wrap(ExprKind::kUnary, std::move(test), "not") : std::move(test);
  }

  // After "is name": an argument without parentheses.
  bool StartsOperand() const {
    switch (peek().kind) {
      case TokenKind::kString:
      case TokenKind::kInt:
      case TokenKind::kFloat:
        return true;
      case TokenKind::kName:
        return !(IsName("and") || IsName("or") || IsName("not") || IsName("if") || IsName("else") ||
                 IsName("is") || IsName("in") || IsName("recursive"));
      case TokenKind::kOperator:
        return IsOperator("[") || IsOperator("{");
      default:
        return false;
    }
  }

  ExprPtr ParsePostfix(ExprPtr expr) {
    while (ok()) {
      if (TakeOperator(".")) {
        if (peek().kind == TokenKind::kInt) {
          int64_t index = 0;
          if (!absl::SimpleAtoi(Take().text, &index)) Fail("a bad index");
          expr = Wrap(ExprKind::kSubscript, std::move(expr));
          AddChild(expr.get(), Literal(Value(index)));
        } else {
          expr = Wrap(ExprKind::kAttribute, std::move(expr), ExpectName());
        }
      } else if (TakeOperator("[")) {
        expr = ParseSubscript(std::move(expr));
      } else if (IsOperator("(")) {
        expr = Wrap(ExprKind::kCall, std::move(expr));
        ParseCallArguments(expr.get());
      } else {
        break;
      }
    }
    return expr;
  }

  ExprPtr ParseSubscript(ExprPtr object) {
    ExprPtr parts[3];
    int count = 0;
    bool slice = false;
    for (; count < 3 && ok(); ++count) {
      if (!IsOperator(":") && !IsOperator("]")) parts[count] = ParseExpression();
      if (!TakeOperator(":")) break;
      slice = true;
    }
    Expect("]");
    if (ok() && !slice && parts[0] == nullptr) Fail("an empty subscript");
    ExprPtr expr = Wrap(slice ? ExprKind::kSlice : ExprKind::kSubscript, std::move(object));
    for (int i = 0; i < (slice ? 3 : 1); ++i) AddChild(expr.get(), std::move(parts[i]));
    return expr;
  }

  void ParseCallArguments(Expr* call) {
    Expect("(");
    while (ok() && !IsOperator(")")) {
      if (peek().kind == TokenKind::kName && IsOperator("=", 1)) {
        std::string name = Take().text;
        Take();
        ExprPtr value = ParseExpression();
        Measure(call, value.get());
        call->named.emplace_back(std::move(name), std::move(value));
      } else {
        AddChild(call, ParseExpression());
      }
      if (!TakeOperator(",")) break;
    }
    Expect(")");
  }

  ExprPtr ParsePrimary() {
    if (!ok()) return nullptr;
    const Token token = Take();
    switch (token.kind) {
      case TokenKind::kString: {
        std::string text = token.text;  // neighbouring strings join
        while (peek().kind == TokenKind::kString) text += Take().text;
        return Literal(Value(std::move(text)));
      }
      case TokenKind::kInt: {
        int64_t number = 0;
        if (!absl::SimpleAtoi(token.text, &number))
          Fail(absl::StrCat("the number ", token.text, " is too large"));
        return Literal(Value(number));
      }
      case TokenKind::kFloat: {
        double number = 0.0;
        if (!absl::SimpleAtod(token.text, &number)) Fail(absl::StrCat("bad number ", token.text));
        return Literal(Value(number));
      }
      case TokenKind::kName: {
        if (token.text == "true" || token.text == "True") return Literal(Value(true));
        if (token.text == "false" || token.text == "False") return Literal(Value(false));
        if (token.text == "none" || token.text == "None") return Literal(Value(Value::None{}));
        ExprPtr name = NewExpr(ExprKind::kName);
        name->text = token.text;
        return name;
      }
      case TokenKind::kOperator:
        if (token.text == "(") return ParseParenthesised();
        if (token.text == "[") return ParseItems(ExprKind::kList, "]");
        if (token.text == "{") return ParseDict();
        break;
      default:
        break;
    }
    Fail(absl::StrCat("an expression expected, found \"", token.text, "\""));
    return nullptr;
  }

  ExprPtr ParseParenthesised() {
    if (TakeOperator(")")) return NewExpr(ExprKind::kTuple);
    ExprPtr first = ParseExpression();
    if (TakeOperator(")")) return first;
    ExprPtr tuple = NewExpr(ExprKind::kTuple);
    AddChild(tuple.get(), std::move(first));
    while (ok() && TakeOperator(",") && !IsOperator(")")) AddChild(tuple.get(), ParseExpression());
    Expect(")");
    return tuple;
  }

  ExprPtr ParseItems(ExprKind kind, absl::string_view close) {
    ExprPtr items = NewExpr(kind);
    while (ok() && !IsOperator(close)) {
      AddChild(items.get(), ParseExpression());
      if (!TakeOperator(",")) break;
    }
    Expect(close);
    return items;
  }

  ExprPtr ParseDict() {
    ExprPtr dict = NewExpr(ExprKind::kDict);
    while (ok() && !IsOperator("}")) {
      AddChild(dict.get(), ParseExpression());
      Expect(":");
      AddChild(dict.get(), ParseExpression());
      if (!TakeOperator(",")) break;
    }
    Expect("}");
    return dict;
  }

  std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<Body> Parse(absl::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace thermocline::jinja
