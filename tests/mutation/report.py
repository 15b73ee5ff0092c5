"""Verdicts on mutants: the file of results, the survivors that somebody has judged (judged.md), and the table at the end."""
import collections
import json
import pathlib

JUDGED = pathlib.Path(__file__).resolve().parent / "judged.md"
KILLED = ("killed", "timeout")


def key_of(mutant):
    """Says which mutant it is, without lines or numbers, which move."""
    return f"{mutant['file']} {mutant['function']} {mutant['kind']}: `{mutant['before']}` => `{mutant['after']}`"


def read(path):
    """{(number, key): the last verdict} of a file of results."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(r["id"], key_of(r)): r for r in map(json.loads, lines)}


def judged_keys():
    """The survivors in judged.md: lines "- KEY: verdict and reason"."""
    return [line[2:] for line in JUDGED.read_text().splitlines() if line.startswith("- ")] if JUDGED.is_file() else []


def is_judged(mutant, lines):
    return any(line.startswith(key_of(mutant) + ": ") for line in lines)


def folder_of(path):
    parts = path.split("/")[:-1]
    return "/".join(parts[:2])


def show(results):
    """Prints the survivors that nobody has judged, then the table. Returns 1 if there are such survivors."""
    lines = judged_keys()
    open_ones = [r for r in results if r["verdict"] not in KILLED and not is_judged(r, lines)]
    for r in open_ones:
        print(f"{r['verdict']} {r['id']} {r['file']}:{r['line']}\n- {key_of(r)}: ")
    rows = collections.defaultdict(collections.Counter)
    for r in results:
        for name in (folder_of(r["file"]), r["kind"], "all"):
            rows[name][r["verdict"]] += 1
            rows[name]["judged"] += r["verdict"] not in KILLED and is_judged(r, lines)
    columns = ("tried", *KILLED, "survived", "unreached", "judged", "killed of the rest")
    print("\n" + " " * 18 + "".join(f"{column:>{len(column) + 2}}" for column in columns))
    for name in sorted(rows, key=lambda n: (n == "all", "/" not in n, n)):
        row = rows[name]
        total = sum(row[v] for v in (*KILLED, "survived", "unreached"))
        killed, rest = row["killed"] + row["timeout"], total - row["judged"]
        share = f"{100 * killed / rest:.0f} %" if rest else "-"
        values = (total, *(row[column] for column in columns[1:-1]), share)
        print(f"{name:18}" + "".join(f"{value:>{len(column) + 2}}" for column, value in zip(columns, values)))
    return 1 if open_ones else 0
