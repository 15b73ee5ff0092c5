"""Walks the syntax tree of the sources, by libclang, and collects every candidate for a mutant.

What the compiler must know stays as it is: constexpr, types, case labels, sizes of arrays, enumerations, assertions, attributes.
So does what a macro expands to. Templates are mutated where they are defined.
"""
import json
import multiprocessing
import os
import pathlib
import re
import shlex

from clang import cindex
from clang.cindex import CursorKind as K

import exclusions
from kinds import Kinds, span

FUNCTIONS = {K.FUNCTION_DECL, K.CXX_METHOD, K.CONSTRUCTOR, K.DESTRUCTOR, K.FUNCTION_TEMPLATE, K.CONVERSION_FUNCTION}
VARIABLES = {K.VAR_DECL, K.FIELD_DECL, K.PARM_DECL}
LOOPS = {K.FOR_STMT, K.WHILE_STMT, K.DO_STMT, K.CXX_FOR_RANGE_STMT}
JUMPS = {K.BREAK_STMT: {K.SWITCH_STMT}, K.CONTINUE_STMT: LOOPS, K.RETURN_STMT: FUNCTIONS | {K.LAMBDA_EXPR}}
CONDITIONALS = {K.IF_STMT, K.WHILE_STMT, K.DO_STMT, K.CONDITIONAL_OPERATOR}
NO_BEHAVIOUR = {K.ENUM_DECL, K.STATIC_ASSERT, K.TEMPLATE_TYPE_PARAMETER, K.TEMPLATE_NON_TYPE_PARAMETER, K.TYPE_ALIAS_DECL,
                K.TYPEDEF_DECL, K.USING_DECLARATION, K.FRIEND_DECL}


class Finder(Kinds):
    """The walk over the declarations of one file. `above` is the path of cursors from the declaration down."""

    def visit(self, cursor, above=(), statement=False):
        if cursor.kind in NO_BEHAVIOUR or cursor.kind.is_attribute() or self.is_constant(cursor):
            return
        if cursor.kind == K.CALL_EXPR and (exclusions.CALLS.match(self.callee(cursor)) or self.goes_to_stderr(cursor)):
            return
        outer = self.function
        if cursor.kind in FUNCTIONS or cursor.kind == K.FIELD_DECL:
            self.function = self.name_of(cursor)
        if not exclusions.FUNCTIONS.search(self.function):
            if statement:
                self.statement(cursor, above)
            self.expression(cursor, above)
            children = list(cursor.get_children())
            is_message = cursor.kind == K.CALL_EXPR and exclusions.MESSAGES.match(self.callee(cursor))
            for child in children if not is_message else ():
                if self.is_behaviour(cursor, child, children):
                    self.visit(child, (*above, cursor), self.is_statement(cursor, child, children))
        self.function = outer

    def statement(self, cursor, above):
        if cursor.kind not in JUMPS:
            self.dropped_expression(cursor)
        elif not self.is_last(cursor, above):
            self.dropped_jump(cursor)

    def expression(self, cursor, above):
        if cursor.kind == K.INTEGER_LITERAL:
            self.literal(cursor)
        if cursor.kind in (K.BINARY_OPERATOR, K.CALL_EXPR):
            self.binary(cursor)
        if cursor.kind == K.CALL_EXPR and not exclusions.MESSAGES.match(self.callee(cursor)):
            self.swapped_arguments(cursor, self.callee(cursor), any(c.kind in VARIABLES for c in above[-1:]))
        condition = self.condition(cursor)
        if condition is not None:
            self.negated(condition)

    def condition(self, cursor):
        """The condition of an if, a loop or a ?:, but for one that declares a variable."""
        if cursor.kind not in CONDITIONALS:
            return None
        follows = b"?" if cursor.kind == K.CONDITIONAL_OPERATOR else b")"
        for child in cursor.get_children():
            begin, end = span(child)
            if child.kind.is_expression() and begin < end and self.source[end:end + 200].lstrip().startswith(follows):
                return child
        return None

    def name_of(self, cursor):
        owner = cursor.semantic_parent
        name = cursor.spelling.split("<")[0]
        inside = owner is not None and owner.kind in (K.CLASS_DECL, K.STRUCT_DECL, K.CLASS_TEMPLATE)
        return f"{owner.spelling}::{name}" if inside else name

    def callee(self, cursor):
        begin, end = span(cursor)
        name = re.search(rb"(\w+)\s*\(", self.source[begin:end])  # for templates, where the name may be open
        return cursor.spelling or (name.group(1).decode() if name else "")

    def goes_to_stderr(self, call):
        begin, end = span(call)
        return re.match(rb"(std::)?f(printf|puts)\(", self.source[begin:end]) and b"stderr" in self.source[begin:end]

    def is_constant(self, cursor):
        begin, end = span(cursor)
        if cursor.kind in FUNCTIONS | VARIABLES:
            return re.search(rb"\b(constexpr|consteval)\b", self.source[begin:cursor.location.offset]) is not None
        return cursor.kind == K.IF_STMT and re.match(rb"if\s+constexpr", self.source[begin:end]) is not None

    def is_behaviour(self, parent, child, siblings):
        """False for parts of a type, the label of a case, the size of an array."""
        if parent.kind == K.CASE_STMT:
            return child != siblings[0]
        if parent.kind in VARIABLES and child.kind.is_expression():
            begin, end = span(child)
            is_size = self.source[end:end + 1] == b"]" and b"=" not in self.source[parent.location.offset:begin]
            return begin >= parent.location.offset and not is_size
        return parent.kind not in (K.DECL_REF_EXPR, K.TYPE_REF, K.TEMPLATE_REF)

    def is_statement(self, parent, child, siblings):
        if parent.kind == K.IF_STMT:
            condition = self.condition(parent)
            return condition is not None and span(child)[0] > span(condition)[1]
        if parent.kind == K.DO_STMT:
            return child == siblings[0]
        ends = LOOPS | {K.CASE_STMT, K.DEFAULT_STMT, K.LABEL_STMT}
        return parent.kind == K.COMPOUND_STMT or (parent.kind in ends and child == siblings[-1])

    def is_last(self, jump, above):
        """True when the function, loop or switch would end here anyway."""
        if len(above) < 2 or above[-1].kind != K.COMPOUND_STMT:
            return False
        return above[-2].kind in JUMPS[jump.kind] and list(above[-1].get_children())[-1] == jump


def clang_arguments(command):
    """What of a compiler's command line says how to read the source."""
    words = shlex.split(command)
    kept = [w for w in words if re.match(r"-(I|D|std=|m|f(?!sanitize|openmp))", w)]
    for flag, value in zip(words, words[1:]):
        if flag in ("-isystem", "-include"):
            kept += [flag, value]
    return kept


def find_in_unit(job):
    """The candidates in one source file and in the headers that it is the first to speak for."""
    root, source, arguments, headers = job
    unit = cindex.Index.create().parse(os.path.join(root, source), arguments,
                                       options=cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD)
    errors = [str(d) for d in unit.diagnostics if d.severity >= cindex.Diagnostic.Error]
    finders = {}
    for path in (source, *headers):
        text = pathlib.Path(root, path).read_bytes()
        file = unit.get_file(os.path.join(root, path))
        finders[os.path.join(root, path)] = Finder(path, text, unit, file, [])
    top = list(unit.cursor.get_children())
    for cursor in top:
        where = cursor.location.file
        finder = finders.get(where.name) if where else None
        if finder and cursor.kind == K.MACRO_INSTANTIATION:
            finder.macros.append(span(cursor))
    for cursor in top:
        where = cursor.location.file
        finder = finders.get(where.name) if where else None
        if finder and not cursor.kind.is_preprocessing():
            finder.visit(cursor)
    return source, errors, [candidate for finder in finders.values() for candidate in finder.found]


def headers_by_source(root, sources, headers):
    """Each header goes with the source of its name, else with the first source that includes it."""
    speakers = {source: [] for source in sources}
    texts = {source: pathlib.Path(root, source).read_text() for source in sources}
    for header in headers:
        own = header[:-2] + ".cc"
        users = [own] if own in speakers else [s for s in sources if f'#include "{header}"' in texts[s]]
        if users:
            speakers[users[0]].append(header)
    return speakers


def find(root, tree, compile_commands, jobs):
    """All candidates, sorted. The commands are those of `tree`, a copy of `root`; what is read is `root`."""
    commands = {}
    for entry in json.loads(pathlib.Path(compile_commands).read_text()):
        path = os.path.relpath(entry["file"], tree)
        if exclusions.wanted_file(path) and "-O" in entry["command"]:
            commands[path] = entry["command"].replace(f"-I{tree}", f"-I{root}")
    headers = sorted(str(p.relative_to(root)) for folder in exclusions.FOLDERS for p in pathlib.Path(root, folder).rglob("*.h"))
    headers = [h for h in headers if exclusions.wanted_file(h)]
    speakers = headers_by_source(root, sorted(commands), headers)
    work = [(root, source, clang_arguments(commands[source]), speakers[source]) for source in sorted(commands)]
    candidates = {}
    with multiprocessing.Pool(jobs) as pool:
        for source, errors, found in pool.imap(find_in_unit, work):
            for error in errors[:3]:
                print(f"{source}: libclang: {error}", flush=True)
            for c in found:
                candidates[c["file"], c["begin"], c["end"], c["kind"], c["after"]] = c
    return [candidates[key] for key in sorted(candidates)]
