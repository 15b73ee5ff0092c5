#!/usr/bin/env python3
"""Runs ctest and says, before its closing summary, how many tests were skipped and why.

  run_ctest.py CTEST ARGUMENT...     (run_ctest.py ctest --preset release)

The summary stays the last thing printed and the exit status is ctest's. The reasons come from what the skipped tests printed:
GTEST_SKIP's message, as ctest's JUnit file keeps it.
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

CLOSING = re.compile(r"^\d+% tests passed, ")
REASON = re.compile(r"^[^\n]*: Skipped\n(.*?)\n*^\[  SKIPPED \]", re.M | re.S)
OUTPUT_BYTES = str(1 << 20)


def reasons_of(output):
    """What GTEST_SKIP said, on one line each."""
    return [" ".join(reason.split()) for reason in REASON.findall(output)] or ["no reason given"]


def skipped_tests(results):
    """reason -> names of tests."""
    skipped = {}
    for test in results:
        if test.find("skipped") is None:
            continue
        for reason in reasons_of(test.findtext("system-out", "")):
            skipped.setdefault(reason, []).append(test.get("name"))
    return skipped


def report(skipped, num_tests):
    count = len({name for names in skipped.values() for name in names})
    if count == 0:
        return f"Skipped: none of {num_tests} tests.\n"
    lines = [f"Skipped: {count} of {num_tests} tests."]
    for reason, names in sorted(skipped.items(), key=lambda item: (-len(item[1]), item[0])):
        # Of a parameterised test the parameter, which comes last, is left out.
        families = sorted({name.rsplit("/", 1)[0] if name.count("/") > 1 else name for name in names})
        lines += [f"{len(names):5}  {reason}", *(f"         {family}" for family in families)]
    return "\n".join(lines) + "\n"


def run(command, junit):
    """Shows ctest's output but for its closing summary, which is returned with the exit status."""
    process = subprocess.Popen([*command, "--output-junit", junit, "--test-output-size-passed", OUTPUT_BYTES],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    closing = []
    for line in process.stdout:
        text = line.decode(errors="replace")
        if closing or CLOSING.match(text):
            closing.append(text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    return closing, process.wait()


def main(command):
    with tempfile.TemporaryDirectory() as folder:
        junit = pathlib.Path(folder) / "junit.xml"
        closing, status = run(command, junit)
        if junit.exists():
            results = list(ElementTree.parse(junit).iter("testcase"))
            sys.stdout.write(report(skipped_tests(results), len(results)) + "\n")
    sys.stdout.write("".join(closing))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
