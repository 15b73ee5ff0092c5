"""Runs a sample of seeded mutants: one build for all, then for each the tests that come past it, the quick ones first."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import sys
import tempfile
import time

import generate
import report
import selection
from programs import Programs

QUICK_SECONDS = 0.5  # cases up to this long run before the others of their program
TIMEOUT_FACTOR, TIMEOUT_SECONDS = 4, 10  # a mutant may take this many times the usual time and so many seconds more


class Sample:
    def __init__(self, folder, jobs, through):
        self.folder, self.jobs = pathlib.Path(folder).resolve(), jobs
        self.tree, self.build = self.folder / "tree", self.folder / "build"
        self.programs = Programs(self.build, through)
        self.through = list(through)
        self.mutants = []

    def prepare(self, source, seed, count, under):
        """Generates and builds; what the compiler refuses is left out."""
        start = time.monotonic()
        self.mutants = generate.choose(source, self.tree, seed, count, under, self.through, self.jobs)
        print(f"{len(self.mutants)} mutants chosen in {time.monotonic() - start:.0f} s", flush=True)
        start = time.monotonic()
        rejected = self.folder / "rejected.json"
        refused = set(json.loads(rejected.read_text())) if rejected.is_file() else set()
        while True:
            self.mutants = [m for m in self.mutants if self.digest(m) not in refused]
            generate.write_tree(source, self.tree, self.mutants)
            generate.configure(self.tree, self.build, self.through)
            known = self.programs.known()
            named = {p for m in self.mutants for p, _ in selection.programs_for(m["file"])}
            self.wanted = sorted(named & known)
            output = self.programs.build(self.wanted)
            if output is None:
                break
            bad = self.blamed(output)
            if not bad:
                sys.exit(output[-5000:])
            refused |= {self.digest(m) for m in bad}
            rejected.write_text(json.dumps(sorted(refused)))
            print("the compiler refuses " + ", ".join(f"{m['file']}:{m['line']} ({m['kind']})" for m in bad), flush=True)
        if named - known:
            print(f"selection.py names what is not there: {', '.join(sorted(named - known))}", flush=True)
        print(f"{len(self.mutants)} mutants built in {time.monotonic() - start:.0f} s", flush=True)

    def digest(self, mutant):
        return hashlib.sha256(repr([mutant[k] for k in ("file", "begin", "kind", "before", "after")]).encode()).hexdigest()

    def blamed(self, output):
        """The mutants at the lines of the errors; failing that, at any line that the compiler speaks of."""
        places = {"error": set(), "any": set()}
        for path, line, what in re.findall(r"^(?:In file included from |\s+from )?(\S+?):(\d+):\d+: *(\w+)?", output, re.MULTILINE):
            where = os.path.relpath((self.build / path).resolve(), self.tree)
            places["any"].add((where, int(line)))
            if what == "error":
                places["error"].add((where, int(line)))
        for lines in places.values():
            bad = [m for m in self.mutants if any((m["file"], n) in lines for n in range(m["line"], m["last_line"] + 1))]
            if bad:
                return bad
        files = {path for path, _ in places["error"]}
        return [m for m in self.mutants if m["file"] in files]

    # What the unedited program does.

    def baseline(self):
        """{program: {case: {"seconds", "passed", "mutants": numbers that it comes past}}}, each case in a process of its own."""
        digest = hashlib.sha256((self.tree / "mutants.json").read_bytes())
        for program in self.wanted:
            binary = self.build / "tests" / program
            if binary.is_file():
                digest.update(f"{program} {binary.stat().st_mtime_ns}".encode())
            else:  # a Python test
                digest.update(pathlib.Path(self.programs.python_tests()[program][1]).read_bytes())
        store = self.folder / "baseline.json"
        if store.is_file() and json.loads(store.read_text())["digest"] == digest.hexdigest():
            return json.loads(store.read_text())["programs"]
        start = time.monotonic()
        work = [(program, case) for program in self.wanted for case in self.programs.cases(program)]
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            traces = list(pool.map(lambda job: self.trace(*job), work))
        programs = {program: {} for program in self.wanted}
        for (program, case), trace in zip(work, traces):
            programs[program][case] = trace
        print(f"{len(work)} cases passed over without a mutant in {time.monotonic() - start:.0f} s", flush=True)
        store.write_text(json.dumps({"digest": digest.hexdigest(), "programs": programs}))
        return programs

    def trace(self, program, case):
        for _ in range(2):  # a case that fails once may have met a busy machine
            with tempfile.NamedTemporaryFile(suffix=".trace") as file:
                file.write(bytes(max(m["id"] for m in self.mutants) + 1))
                file.flush()
                verdict, _, seconds = self.programs.run(program, [case], 600, THERMOCLINE_MUTANT_TRACE=file.name)
                reached = [i for i, seen in enumerate(pathlib.Path(file.name).read_bytes()) if seen]
            if verdict == "passed":
                break
        return {"seconds": seconds, "passed": verdict == "passed", "mutants": reached}

    # One mutant.

    def batches(self, mutant, baseline):
        """[(seconds, program, cases)], the shortest first."""
        found = []
        for program, pattern in selection.programs_for(mutant["file"]):
            cases = {c: t for c, t in baseline.get(program, {}).items()
                     if t["passed"] and mutant["id"] in t["mutants"] and selection.matches(pattern, c)}
            for quick in (True, False):
                names = [c for c, t in cases.items() if (t["seconds"] <= QUICK_SECONDS) == quick]
                if names:
                    found.append((sum(cases[c]["seconds"] for c in names), program, names))
        return sorted(found)

    def judge(self, mutant, baseline):
        """The mutant with its verdict: killed, timeout, survived, or unreached when no test comes past it."""
        start = time.monotonic()
        batches = self.batches(mutant, baseline)
        result = {"verdict": "survived" if batches else "unreached", "by": None, "unsure": []}
        for seconds, program, cases in batches:
            self.run_batch(mutant, program, list(cases), TIMEOUT_FACTOR * seconds + TIMEOUT_SECONDS, result)
            if result["by"]:
                break
        fields = {k: mutant[k] for k in ("id", "file", "line", "function", "kind", "before", "after")}
        return {**fields, **result, "seconds": round(time.monotonic() - start, 1)}

    def run_batch(self, mutant, program, cases, timeout, result):
        """A failure or a hang counts when it comes a second time, of the case by itself: a busy machine kills no mutant."""
        switch = {"THERMOCLINE_MUTANT": str(mutant["id"])}
        while cases:
            verdict, case, _ = self.programs.run(program, cases, timeout, **switch)
            if verdict == "passed":
                return
            # Before the first case, as in a fixture for all of them, it is none.
            again = [case] if case in cases else list(cases)
            if self.programs.run(program, again, timeout, **switch)[0] == "passed":
                result["unsure"].append(f"{program} {case}")
                cases = [c for c in cases if c not in again]
                continue
            result.update(verdict="timeout" if verdict == "timeout" else "killed", by=f"{program} {case}")
            return


def run(args):
    source = generate.HERE.parent.parent
    sample = Sample(args.folder, args.jobs, args.through.split())
    sample.prepare(source, args.seed, args.count, args.under)
    results = sample.folder / f"results-{args.seed}-{args.count}{'-' + args.under.replace('/', '-') if args.under else ''}.jsonl"
    if not sample.mutants:
        sys.exit(f"no place for a mutant under {args.under!r}")
    if args.list:
        print(*(f"{m['id']:4} {report.key_of(m)}" for m in sample.mutants), sep="\n")
        return 0
    baseline = sample.baseline()
    failing = [f"{program} {case}" for program, cases in baseline.items() for case, t in cases.items() if not t["passed"]]
    if failing and not args.ignore_failing:
        sys.exit("these fail without a mutant (--ignore-failing leaves them out): " + ", ".join(failing))
    done = {} if args.again else report.read(results)
    only = {int(i) for i in args.only.split(",")} if args.only else None
    todo = [m for m in sample.mutants if (only is None or m["id"] in only) and is_open(m, done, args.survivors)]
    with results.open("a") as out, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for work in concurrent.futures.as_completed([pool.submit(sample.judge, m, baseline) for m in todo]):
            judged = work.result()
            out.write(json.dumps(judged) + "\n")
            out.flush()
            print(f"{judged['id']:4} {judged['verdict']:9} {judged['seconds']:6.1f} s  {judged['file']}:{judged['line']} "
                  f"{judged['kind']}  {judged['by'] or ''}", flush=True)
    done = report.read(results)
    return report.show([done[m["id"], report.key_of(m)] for m in sample.mutants if (m["id"], report.key_of(m)) in done])


def is_open(mutant, done, survivors_too):
    verdict = done.get((mutant["id"], report.key_of(mutant)), {}).get("verdict")
    return verdict is None or (survivors_too and verdict not in report.KILLED)
