#!/usr/bin/python3
"""Do the tests notice when the program is wrong? By hand, never in CI: README.md says how long and what to make of it.

    run.py sampled --seed 1 --count 200    seeded mutants, one build for all
    run.py patches [NAME...]               the edits in patches/, each of which its named test must notice
"""
import argparse
import os
import pathlib
import sys

import generate
import patches
import sampled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    seeded = commands.add_parser("sampled")
    seeded.set_defaults(run=sampled.run)
    seeded.add_argument("--seed", type=int, default=1)
    seeded.add_argument("--count", type=int, default=200)
    seeded.add_argument("--under", default="", help="only files whose path begins so, for example engine/text/template")
    seeded.add_argument("--only", default="", help="numbers of mutants: 3,17")
    seeded.add_argument("--survivors", action="store_true", help="once more those that survived, after tests were added")
    seeded.add_argument("--again", action="store_true", help="once more all of them")
    seeded.add_argument("--jobs", type=int, default=2)
    by_hand = commands.add_parser("patches")
    by_hand.set_defaults(run=patches.run)
    by_hand.add_argument("names", nargs="*", help="without .patch; none: all")
    for command in (seeded, by_hand):
        command.add_argument("--list", action="store_true", help="list them and stop")
        command.add_argument("--ignore-failing", action="store_true", help="go on although tests fail without a mutant")
        command.add_argument("--through", default="", help="a command that runs the builds, for example a lock")
        command.add_argument("--folder", type=pathlib.Path, default=generate.HERE.parent.parent / "build-mutants",
                             help="of the copies and results")
    args = parser.parse_args()
    # Both copies have the same layout, so ccache may take what one compiled for the other.
    os.environ.setdefault("CCACHE_BASEDIR", str(args.folder.resolve()))
    os.environ.setdefault("CCACHE_NOHASHDIR", "1")
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
