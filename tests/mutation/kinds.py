"""The kinds of mutants: where one expression or statement may be changed, and into what. README.md lists them."""
import re

from clang.cindex import CursorKind as K
from clang.cindex import SourceLocation, SourceRange, TokenKind, TypeKind

import exclusions

GUARD = b"@GUARD@"  # becomes the question whether this mutant is the one that is switched on
NEIGHBOURS = {b"<": b"<=", b"<=": b"<", b">": b">=", b">=": b">", b"==": b"!=", b"!=": b"=="}
LOGICAL = {b"&&": b"||", b"||": b"&&"}
INTEGERS = {TypeKind.UCHAR, TypeKind.USHORT, TypeKind.UINT, TypeKind.ULONG, TypeKind.ULONGLONG, TypeKind.CHAR_S, TypeKind.SCHAR,
            TypeKind.SHORT, TypeKind.INT, TypeKind.LONG, TypeKind.LONGLONG}
NUMBERS = INTEGERS | {TypeKind.FLOAT, TypeKind.DOUBLE, TypeKind.BOOL}
UNKNOWN = {TypeKind.DEPENDENT, TypeKind.INVALID}
EFFECTS = {K.CALL_EXPR, K.COMPOUND_ASSIGNMENT_OPERATOR, K.UNARY_OPERATOR, K.CXX_DELETE_EXPR}


def span(cursor):
    return cursor.extent.start.offset, cursor.extent.end.offset


def peel(cursor):
    """The expression as written, without the conversions around it."""
    while cursor.kind in (K.UNEXPOSED_EXPR, K.CALL_EXPR):
        children = list(cursor.get_children())
        if len(children) != 1 or children[0].extent != cursor.extent:
            break
        cursor = children[0]
    return cursor


class Kinds:
    """Collects candidates of one file in `found`. A candidate's edits are [begin, end, text that goes there] and do not overlap;
    "before" and "after" show the line that they stand in, for people and for judged.md."""

    def __init__(self, path, source, unit, file, macros):
        self.path, self.source, self.unit, self.file, self.macros = path, source, unit, file, macros
        self.function = ""
        self.found = []

    def on_one_line(self, begin, end):
        """The source for a second copy of it: what follows keeps its line number."""
        text = self.source[begin:end]
        if b"//" not in text:
            return re.sub(rb"\s*\n\s*", b" ", text)
        extent = SourceRange.from_locations(SourceLocation.from_offset(self.unit, self.file, begin),
                                            SourceLocation.from_offset(self.unit, self.file, end))
        tokens = [t for t in self.unit.get_tokens(extent=extent) if t.kind != TokenKind.COMMENT and t.extent.end.offset <= end]
        gaps = [b" " if one.extent.end.offset < two.extent.start.offset else b"" for one, two in zip(tokens, tokens[1:])]
        return b"".join(t.spelling.encode() + gap for t, gap in zip(tokens, gaps + [b""]))

    def operator(self, cursor):
        """(begin, end of the left operand, begin of the right one, end, operator), or None."""
        operands = list(cursor.get_arguments() if cursor.kind == K.CALL_EXPR else cursor.get_children())
        if cursor.kind not in (K.BINARY_OPERATOR, K.CALL_EXPR) or len(operands) != 2:
            return None
        (begin, left), (right, end) = map(span, operands)
        return (begin, left, right, end, self.source[left:right].strip()) if begin < left < right < end else None

    def add(self, kind, begin, end, edits, after=b""):
        text = self.on_one_line(begin, end)
        in_macro = any(m[0] <= begin and end <= m[1] for m in self.macros)
        line = self.source[self.source.rfind(b"\n", 0, begin) + 1:begin].lstrip()
        rest = self.source[end:self.source.find(b"\n", end)]
        if in_macro or b"\n#" in self.source[begin:end] or b'R"' in text or exclusions.TEXT.search((line + text + rest).decode()):
            return
        self.found.append({"file": self.path, "line": self.source.count(b"\n", 0, begin) + 1,
                           "last_line": self.source.count(b"\n", 0, end) + 1, "function": self.function, "kind": kind,
                           "before": (line + text + rest).decode(), "after": (line + after + rest).decode(),
                           "begin": begin, "end": end, "edits": [[b, e, new.decode()] for b, e, new in edits]})

    def choice(self, kind, begin, end, after):
        self.add(kind, begin, end, [(begin, begin, b"(" + GUARD + b" ? " + after + b" : "), (end, end, b")")], after)

    def literal(self, cursor):
        begin, end = span(cursor)
        match = re.fullmatch(rb"(0[xX][0-9a-fA-F']+|0|[1-9][0-9']*)([uUlLzZ]*)", self.source[begin:end])
        if not match:
            return
        value = int(match.group(1).replace(b"'", b""), 0)
        for neighbour in [value + 1] + ([value - 1] if value > 0 else []):
            digits = hex(neighbour) if match.group(1)[:2] in (b"0x", b"0X") else str(neighbour)
            self.choice("off_by_one", begin, end, digits.encode() + match.group(2))

    def binary(self, cursor):
        found = self.operator(cursor)
        if found is None:
            return
        begin, left, right, end, operator = found
        kind = cursor.type.get_canonical().kind
        new = (NEIGHBOURS | LOGICAL).get(operator)
        if new and (kind == TypeKind.BOOL or kind in UNKNOWN):
            after = self.on_one_line(begin, left) + b" " + new + b" " + self.on_one_line(right, end)
            self.choice("comparison" if operator in NEIGHBOURS else "negated_condition", begin, end, after)
        elif operator in (b"+", b"-") and kind in INTEGERS:
            edits = [(begin, begin, b"(("), (end, end, b") + (" + GUARD + b" ? 1 : 0))")]
            self.add("off_by_one", begin, end, edits, self.on_one_line(begin, end) + b" + 1")

    def negated(self, condition):
        written = peel(condition)
        found = self.operator(written)
        if written.kind in (K.CXX_BOOL_LITERAL_EXPR, K.INTEGER_LITERAL) or (found and found[-1] in (b"==", b"!=")):
            return  # of == and != the comparison's neighbour is the same
        begin, end = span(condition)
        edits = [(begin, begin, b"(" + GUARD + b" != static_cast<bool>("), (end, end, b"))")]
        self.add("negated_condition", begin, end, edits, b"!(" + self.on_one_line(begin, end) + b")")

    def swapped_arguments(self, call, name, declares):
        """`declares`: the call is the constructor of a variable, so there is no expression to write twice."""
        begin, end = span(call)
        arguments = list(call.get_arguments())
        if exclusions.NOT_SWAPPED.match(name):
            return
        for first, second in zip(arguments, arguments[1:]):
            (a, b), (c, d) = span(first), span(second)
            if not begin <= a < b < c < d <= end or self.source[b:c].strip() != b"," or self.source[a:b] == self.source[c:d]:
                continue
            if not self.same_type(peel(first), peel(second)) or exclusions.NOT_SWAPPED_ARGUMENT.search(self.source[a:b].decode()):
                continue
            one, two = self.on_one_line(a, b), self.on_one_line(c, d)
            if self.may_be_chosen(peel(first), peel(second)):
                edits = [(a, a, b"(" + GUARD + b" ? " + two + b" : "), (b, b, b")"),
                         (c, c, b"(" + GUARD + b" ? " + one + b" : "), (d, d, b")")]
                self.add("swapped_arguments", a, d, edits, two + b", " + one)
            elif not declares:
                after = self.on_one_line(begin, a) + two + b", " + one + self.on_one_line(d, end)
                self.choice("swapped_arguments", begin, end, after)

    def same_type(self, one, two):
        types = [cursor.type.get_canonical() for cursor in (one, two)]
        names = [type_.spelling.replace("const ", "").rstrip("& ") for type_ in types]
        return names[0] == names[1] and not any(type_.kind in UNKNOWN for type_ in types)

    def may_be_chosen(self, one, two):
        """Whether `guard ? one : two` is what each of them was: both name an object, or both are numbers."""
        kinds = [cursor.type.get_canonical().kind for cursor in (one, two)]
        return all(cursor.kind in (K.DECL_REF_EXPR, K.MEMBER_REF_EXPR) for cursor in (one, two)) or all(k in NUMBERS for k in kinds)

    def dropped_jump(self, cursor):
        begin, end = span(cursor)
        semicolon = self.source.find(b";", end - 1) + 1
        if not list(cursor.get_children()) and not self.source[end:semicolon - 1].strip():
            edits = [(begin, begin, b"{ if (!" + GUARD + b") "), (semicolon, semicolon, b" }")]
            self.add("dropped_statement", begin, semicolon, edits, b"/* dropped */;")

    def dropped_expression(self, cursor):
        written = peel(cursor)
        found = self.operator(written)
        if written.kind in EFFECTS or (found and found[-1] == b"="):
            begin, end = span(cursor)
            edits = [(begin, begin, b"(" + GUARD + b" ? (void)0 : (void)("), (end, end, b"))")]
            self.add("dropped_statement", begin, end, edits, b"/* dropped */")
