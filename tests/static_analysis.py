#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy) with clang's thread-safety analysis over every source of the product.

    static_analysis.py CLANG_TIDY BUILD_DIR SOURCE_DIR [FILE ...]
"""
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

PRODUCT = ("kernels", "cache", "scheduler", "engine", "server", "clients")


def sources(build, root):
    """Files of the product that the build compiles."""
    entries = json.loads(pathlib.Path(build, "compile_commands.json").read_text())
    files = {pathlib.Path(entry["directory"], entry["file"]).resolve() for entry in entries}
    return sorted(str(f) for f in files if f.is_relative_to(root) and f.relative_to(root).parts[0] in PRODUCT)


def check(tidy, build, file):
    # g++'s switches that clang does not know are no finding.
    command = [tidy, "--quiet", "-p", build, "--extra-arg=-Wthread-safety", "--extra-arg=-Wno-unknown-warning-option", file]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout


# What the analysis must find.
UNGUARDED = """#include "kernels/mutex.h"
struct Counter {
  thermocline::Mutex mutex;
  int count ABSL_GUARDED_BY(mutex) = 0;
  void Add() { ++count; }
};
"""


def finds_unguarded_reads(tidy, root):
    with tempfile.TemporaryDirectory(dir=root, prefix="build-analysis-") as folder:  # .clang-tidy holds below the root
        file = pathlib.Path(folder, "unguarded.cc")
        file.write_text(UNGUARDED)
        command = [tidy, "--quiet", str(file), "--", "-std=c++20", f"-I{root}", "-Wthread-safety"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode != 0 and "requires holding mutex 'mutex'" in done.stdout


def main():
    tidy, build, root = sys.argv[1:4]
    if not finds_unguarded_reads(tidy, root):
        sys.exit("clang-tidy does not find a read without its mutex")
    files = sys.argv[4:] or sources(build, pathlib.Path(root).resolve())
    if not files:
        sys.exit("no sources: is there a compile_commands.json?")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, (status, output) in zip(files, pool.map(lambda f: check(tidy, build, f), files)):
            if status != 0:
                failed += 1
                print(f"{file}:\n{output}", flush=True)
    print(f"{len(files)} files, {failed} with findings")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
