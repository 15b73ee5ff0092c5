#!/usr/bin/python3
"""Writes a copy of the sources that holds many mutants at once, each behind a switch (mutant schemata), and mutants.json.

    generate.py --seed 1 --count 200 --source . --out build-mutants/tree

One build of the copy serves every mutant: THERMOCLINE_MUTANT=17 switches number 17 on. Needs python3-clang-14.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import subprocess

import exclusions
from find_mutants import find

HERE = pathlib.Path(__file__).resolve().parent
LINKED = ("share", "tests/data")  # read, never written: links do
CONFIGURE = ["cmake", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Mutants", "-DCMAKE_CXX_FLAGS_MUTANTS=-O1 -DNDEBUG -D_GLIBCXX_ASSERTIONS -w -Wno-narrowing",
             "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]


def write_if_changed(path, data):
    """Keeps the time of a file that stays as it is: nothing is built again for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)


def source_files(source):
    """What git knows or would add, without the data."""
    listed = subprocess.run(["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            check=True, capture_output=True).stdout.decode().split("\0")
    return [name for name in listed if name and pathlib.Path(source, name).is_file() and
            not any(name.startswith(link + "/") for link in LINKED)]


def copy_tree(source, out, replaced=None):
    """Makes `out` a copy of `source` with some files' contents replaced."""
    replaced = replaced or {}
    names = source_files(source)
    for name in names:
        data = replaced[name] if name in replaced else pathlib.Path(source, name).read_bytes()
        write_if_changed(out / name, data)
        os.chmod(out / name, os.stat(source / name).st_mode)
    for link in LINKED:
        (out / link).parent.mkdir(parents=True, exist_ok=True)
        if not (out / link).is_symlink():
            (out / link).symlink_to(source / link)
    kept = set(names)
    for folder, folders, files in os.walk(out):
        folders[:] = [f for f in folders if not pathlib.Path(folder, f).is_symlink()]
        for file in files:
            path = pathlib.Path(folder, file)
            if str(path.relative_to(out)) not in kept and not path.is_symlink():
                path.unlink()


def configure(tree, build, through=()):
    share = build.parent / "share"  # where the program looks for the default model
    if not share.is_symlink():
        share.parent.mkdir(parents=True, exist_ok=True)
        share.symlink_to(tree / "share")
    command = [*through, *CONFIGURE, "-S", str(tree), "-B", str(build)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def candidates_of(source, tree, build, through, jobs):
    """Every candidate; kept in a file until a source changes, because reading them takes minutes."""
    digest = hashlib.sha256()
    texts = [n for n in source_files(source) if n.endswith((".h", ".cc", "CMakeLists.txt")) and not n.startswith("tests/")]
    for path in [*(source / n for n in texts), *(HERE / f"{n}.py" for n in ("exclusions", "kinds", "find_mutants"))]:
        digest.update(path.read_bytes())
    store = build.parent / "candidates.json"
    if store.is_file():
        known = json.loads(store.read_text())
        if known["digest"] == digest.hexdigest():
            return known["candidates"]
    copy_tree(source, tree)
    configure(tree, build, through)
    generated = [f"proto/thermocline/v1/{name}{kind}" for name in ("inference", "control") for kind in (".pb.h", ".grpc.pb.h")]
    subprocess.run([*through, "ninja", "-C", str(build), *generated], check=True, stdout=subprocess.DEVNULL)
    candidates = find(str(source), str(tree), build / "compile_commands.json", jobs)
    store.write_text(json.dumps({"digest": digest.hexdigest(), "candidates": candidates}))
    return candidates


def sample(candidates, seed, count, under):
    """`count` candidates that do not overlap, the kinds in turn."""
    chosen = [c for c in candidates if c["file"].startswith(under)]
    random.Random(seed).shuffle(chosen)
    by_kind = {kind: [c for c in chosen if c["kind"] == kind] for kind in sorted({c["kind"] for c in chosen})}
    taken = []
    while len(taken) < count and any(by_kind.values()):
        for queue in by_kind.values():
            while queue and len(taken) < count:
                c = queue.pop(0)
                if not any(c["file"] == t["file"] and c["begin"] < t["end"] and t["begin"] < c["end"] for t in taken):
                    taken.append(c)
                    break
    return sorted(taken, key=lambda c: (c["file"], c["begin"]))


def rewrite(source, mutants):
    """{file: its text with all its mutants}."""
    texts = {}
    for path in sorted({m["file"] for m in mutants}):
        text = (source / path).read_bytes()
        edits = [(b, e, t, m["id"]) for m in mutants if m["file"] == path for b, e, t in m["edits"]]
        for begin, end, new, number in sorted(edits, reverse=True):
            guarded = new.replace("@GUARD@", f"thermocline_mutant_is({number})").encode()
            text = text[:begin] + guarded + text[end:]
        switch = HERE / "mutant_switch.h"
        texts[path] = f'#include "{switch}"\n#line 1\n'.encode() + text
    return texts


def write_tree(source, tree, mutants):
    """Writes the copy with these mutants, and the list of them beside the sources."""
    copy_tree(source, tree, rewrite(source, mutants))
    (tree / "mutants.json").write_text(json.dumps(mutants, indent=1))


def choose(source, tree, seed, count, under="", through=(), jobs=2):
    """The sampled mutants, numbered from 1."""
    chosen = sample(candidates_of(source, tree, tree.parent / "build", through, jobs), seed, count, under)
    return [{"id": i + 1, **c} for i, c in enumerate(chosen)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--under", default="", help="only files whose path begins so, for example engine/text/template")
    parser.add_argument("--source", type=pathlib.Path, default=HERE.parent.parent)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build-mutants/tree"))
    parser.add_argument("--through", default="", help="a command that runs the builds, for example a lock")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    source, tree = args.source.resolve(), args.out.resolve()
    mutants = choose(source, tree, args.seed, args.count, args.under, args.through.split(), args.jobs)
    write_tree(source, tree, mutants)
    print(f"{len(mutants)} mutants in {len({m['file'] for m in mutants})} files: {args.out}/mutants.json")


if __name__ == "__main__":
    main()
