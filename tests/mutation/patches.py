"""Applies each patch of patches/ to a copy of the tree, builds what should see it and runs that: the rules' own tests, kept honest.

A patch begins with three lines: "Breaks: ", what the edit does; "Rule: ", what it breaks; "Kills: PROGRAM PATTERN", the test that
must fail (PATTERN as in --gtest_filter).
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import generate
import selection
from programs import Programs

PATCHES = generate.HERE / "patches"
TIMEOUT_SECONDS = 300


class Patch:
    def __init__(self, path):
        self.path, self.name = path, path.stem
        text = path.read_text()
        self.program, _, self.pattern = re.search(r"^Kills: (.+)$", text, re.MULTILINE).group(1).partition(" ")
        self.pattern = self.pattern or "*"
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)


class Patched:
    """A copy of the tree in which one patch at a time is applied."""

    def __init__(self, folder, through):
        self.source = generate.HERE.parent.parent
        self.tree, self.build = folder / "patched/tree", folder / "patched/build"
        self.through = list(through)
        generate.copy_tree(self.source, self.tree)
        generate.configure(self.tree, self.build, self.through)
        self.programs = Programs(self.build, through)

    def applies(self, patch):
        """Applies it; False when it no longer fits."""
        # git must not take the copy for a part of the checkout around it.
        result = subprocess.run(["git", "apply", str(patch.path)], cwd=self.tree, capture_output=True,
                                env={**os.environ, "GIT_CEILING_DIRECTORIES": str(self.tree.parent)})
        return result.returncode == 0

    def revert(self, patch):
        for name in patch.files:
            shutil.copyfile(self.source / name, self.tree / name)

    def failing(self, program, pattern):
        """What fails first of the cases that the pattern names: "PROGRAM CASE"; "" if they pass; None if there are none."""
        if program not in self.programs.known():
            return None
        error = self.programs.build([program])
        if error:
            return f"{program} does not build: {error[-1000:]}"
        cases = [c for c in self.programs.cases(program) if selection.matches(pattern, c)]
        if not cases:
            return None
        verdict, case, _ = self.programs.run(program, cases, TIMEOUT_SECONDS)
        if verdict != "passed":  # a busy machine kills no mutant
            verdict = self.programs.run(program, [case] if case in cases else cases, TIMEOUT_SECONDS)[0]
        return "" if verdict == "passed" else f"{program} {case}" + (" (timeout)" if verdict == "timeout" else "")

    def judge(self, patch):
        """(verdict, what it rests on)."""
        if not self.applies(patch):
            return "does not apply", ""
        try:
            named = self.failing(patch.program, patch.pattern)
            if named:
                return "does not build" if "does not build" in named else "killed", named
            missing = "" if named == "" else f"there is no {patch.program} {patch.pattern}"
            for program, pattern in [(patch.program, "*"), *selection.programs_for(patch.files[0])]:
                other = self.failing(program, pattern)
                if other:
                    return "killed by another", f"{other} {missing}"
            return "survived", missing
        finally:
            self.revert(patch)

    def red(self, patches):
        """The named tests that fail without any patch."""
        named = sorted({(patch.program, patch.pattern) for patch in patches})
        return [failing for failing in (self.failing(*name) for name in named) if failing]


def run(args):
    patches = [Patch(p) for p in sorted(PATCHES.glob("*.patch")) if not args.names or p.stem in args.names]
    unknown = set(args.names) - {p.name for p in patches}
    if unknown:
        sys.exit(f"there is no patch {', '.join(sorted(unknown))}; --list shows them")
    if args.list:
        print(*(f"{p.name:8} {p.program} {p.pattern}" for p in patches), sep="\n")
        return 0
    patched = Patched(args.folder.resolve(), args.through.split())
    red = patched.red(patches)
    if red and not args.ignore_failing:
        sys.exit("without any patch (--ignore-failing goes on):\n" + "\n".join(red))
    verdicts = []
    for patch in patches:
        start = time.monotonic()
        verdict, detail = patched.judge(patch)
        verdicts.append(verdict)
        print(f"{patch.name:8} {verdict:18} {time.monotonic() - start:5.0f} s  {detail}", flush=True)
    print(", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts))))
    return 0 if set(verdicts) <= {"killed"} else 1
