"""Builds and runs the test programs of one build folder: googletest programs and Python tests, both by case."""
import ast
import functools
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile
import time

import selection

# Runs chosen cases of a Python test: the names, the script, the script's arguments.
UNITTEST = """import importlib.util, sys, unittest
names, sys.argv = sys.argv[1].split(":"), sys.argv[2:]
spec = importlib.util.spec_from_file_location("cases", sys.argv[0])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
unittest.main(module, argv=["cases", "--failfast", "--verbose", *names])
"""
MAX_DATA_BYTES = 8 << 30  # a mutant may ask for any amount of memory, and of disk
MAX_FILE_BYTES = 2 << 30


def limit(sparse_files):
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_DATA: MAX_DATA_BYTES}
    if not sparse_files:
        limits[resource.RLIMIT_FSIZE] = MAX_FILE_BYTES
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


class Programs:
    def __init__(self, build, through=()):
        self.build_folder, self.through = pathlib.Path(build), list(through)

    def output(self, *command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @functools.cache
    def targets(self):
        out = self.output("ninja", "-C", self.build_folder, "-t", "targets", "all")
        return set(re.findall(r"^([\w-]+): phony$", out, re.MULTILINE))

    @functools.cache
    def python_tests(self):
        """{name: command} of the tests that are Python scripts."""
        out = self.output("ctest", "--test-dir", self.build_folder, "--show-only=json-v1")
        commands = {test["name"]: test.get("command", []) for test in json.loads(out)["tests"]}
        return {name: c for name, c in commands.items() if len(c) > 1 and c[1].endswith("_test.py")}

    def known(self):
        return self.targets() | set(self.python_tests())

    def build(self, programs):
        """Builds them, as far as it goes; returns the build's output if it failed, else None."""
        wanted = {p for p in programs if p in self.targets()}
        if any(p in self.python_tests() for p in programs):
            wanted |= set(selection.PYTHON_NEEDS) & self.targets()
        command = [*self.through, "ninja", "-C", self.build_folder, "-k", "0", *sorted(wanted)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return result.stdout if result.returncode != 0 else None

    def cases(self, program):
        if program in self.python_tests():
            tree = ast.parse(pathlib.Path(self.python_tests()[program][1]).read_text())
            return [f"{c.name}.{f.name}" for c in tree.body if isinstance(c, ast.ClassDef)
                    for f in c.body if isinstance(f, ast.FunctionDef) and f.name.startswith("test")]
        names, suite = [], ""
        for line in self.output(self.build_folder / "tests" / program, "--gtest_list_tests").splitlines():
            name = line.split("#")[0].rstrip()
            if name.startswith("  ") and "DISABLED_" not in suite + name:
                names.append(suite + name.strip())
            elif re.fullmatch(r"\S+\.", name):
                suite = name
        return names

    def command(self, program, cases):
        python = self.python_tests()
        if program in python:
            return [python[program][0], "-c", UNITTEST, ":".join(cases), *python[program][1:]]
        return [self.build_folder / "tests" / program, "--gtest_fail_fast", "--gtest_filter=" + ":".join(cases)]

    def run(self, program, cases, timeout, **environment):
        """Runs the cases until one fails. Returns ("passed" | "failed" | "timeout", the case that failed or ran, seconds)."""
        # Python tests make files with holes, larger than memory.
        limits = functools.partial(limit, sparse_files=program in self.python_tests())
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder, "log")
            start = time.monotonic()
            with log.open("w") as out:
                process = subprocess.Popen(self.command(program, cases), stdin=subprocess.DEVNULL, stdout=out,
                                           stderr=subprocess.STDOUT, cwd=folder, preexec_fn=limits, start_new_session=True,
                                           env={**os.environ, "TMPDIR": folder, **environment})
                try:
                    verdict = "passed" if process.wait(timeout) == 0 else "failed"
                except subprocess.TimeoutExpired:
                    verdict = "timeout"
                self.end(process)
            text = log.read_text(errors="replace")
            return verdict, None if verdict == "passed" else self.last_case(text), time.monotonic() - start

    def end(self, process):
        """Ends what the test started too: servers outlive a test that fails."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def last_case(self, log):
        """The case that failed; after a crash or a hang the one that ran."""
        found = lambda pattern: re.findall(pattern, log, re.MULTILINE)
        google = found(r"^\[  FAILED  \] ([\w./]+)") or found(r"^\[ RUN      \] ([\w./]+)")[-1:]
        python = found(r"^(?:FAIL|ERROR): (\w+) \(\w+\.(\w+)") or found(r"^(test\w+) \(\w+\.(\w+)")[-1:]
        return google[0] if google else f"{python[0][1]}.{python[0][0]}" if python else None
