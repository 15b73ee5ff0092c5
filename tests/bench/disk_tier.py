#!/usr/bin/env python3
"""A model larger than memory: `thermocline bench` in a memory cgroup against the disk's own speed and, if asked, llama.cpp (memory-mapped) in the same
group, in turns. Needs root and a cgroup file system (version 1 or 2); prints one line a measurement and JSON at the end.

    python3 tests/bench/disk_tier.py build/server/thermocline MODEL.gguf --limit 2.2e9 [--rounds 3] [--llama-python /path/to/python]

Every round: the page cache is dropped, random direct reads of 1 MiB of the model file, 8 at a time, give the disk's bandwidth before and after each
program. `--prompt-tokens 1 --new-tokens 2` makes every stream many short ones, so that a random model's routing varies from token to token (in long ones it
settles on the same experts). The roofline of a row is the bytes it read from the file over that bandwidth. What the group held (anonymous, shared, kernel memory) is sampled 20
times a second.
"""
import argparse
import concurrent.futures
import json
import mmap
import os
import pathlib
import random
import statistics
import subprocess
import sys
import threading
import time

PIECE = 1 << 20


class Group:
    """A memory cgroup with a limit, and what has been held in it."""

    def __init__(self, limit):
        old = pathlib.Path("/sys/fs/cgroup/memory")
        self.old = (old / "memory.limit_in_bytes").exists()
        self.path = (old if self.old else pathlib.Path("/sys/fs/cgroup")) / f"thermocline_bench_{os.getpid()}"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(limit))
        swap = self.path / ("memory.memsw.limit_in_bytes" if self.old else "memory.swap.max")
        if swap.exists():  # not where the kernel does not count swap
            swap.write_text(str(limit) if self.old else "0")
        self.peak = 0
        self.over = threading.Event()
        self.watch = threading.Thread(target=self.sample)
        self.watch.start()

    def sample(self):
        while not self.over.wait(0.05):
            stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
            if self.old:
                kernel = self.path / "memory.kmem.usage_in_bytes"
                held = int(stat["rss"]) + int(stat["shmem"]) + (int(kernel.read_text()) if kernel.exists() else 0)
            else:  # "kernel" since Linux 5.18
                held = int(stat["anon"]) + int(stat["shmem"]) + int(stat.get("kernel", stat.get("slab", 0)))
            self.peak = max(self.peak, held)

    def hits(self):
        """How often the limit was hit (version 1: also by page cache) and processes were killed."""
        if self.old:
            killed = dict(line.split() for line in (self.path / "memory.oom_control").read_text().splitlines()).get("oom_kill", "0")
            return int((self.path / "memory.failcnt").read_text()), int(killed)
        events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        return int(events["max"]), int(events["oom_kill"])

    def run(self, command):
        def enter():
            (self.path / "cgroup.procs").write_text(str(os.getpid()))
        self.peak = 0
        before = self.hits()
        done = subprocess.run(command, preexec_fn=enter, capture_output=True, text=True)
        hits, killed = (now - then for now, then in zip(self.hits(), before))
        memory = {"held_peak_mb": self.peak / 1e6, "limit_hits": hits, "killed": killed}
        if done.returncode != 0:
            return {"error": done.stderr.strip()[-300:] or f"ended by signal {-done.returncode}", **memory}
        return {**json.loads(done.stdout.strip().splitlines()[-1] if "--llama-only" in command else done.stdout), **memory}

    def close(self):
        self.over.set()
        self.watch.join()
        self.path.rmdir()


def drop_cache(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_bandwidth(path, seconds, depth=8):
    """Bytes a second of random direct reads."""
    pieces = os.path.getsize(path) // PIECE
    end = time.monotonic() + seconds

    def read(seed):
        generator, total = random.Random(seed), 0
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, PIECE)
        while time.monotonic() < end:
            total += os.preadv(fd, [buffer], generator.randrange(pieces) * PIECE)
        os.close(fd)
        return total

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(depth) as pool:
        total = sum(pool.map(read, [time.time_ns() + i for i in range(depth)]))
    return total / (time.monotonic() - start)


def llama(args):
    """Tokens a second of llama.cpp; in a process of its own."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import compare_llama_cpp
    import llama_cpp
    defaults = llama_cpp.llama_model_default_params

    def mapped():  # without weights repacked into memory, for which there is no room
        params = defaults()
        if hasattr(params, "use_extra_bufts"):
            params.use_extra_bufts = False
        return params

    llama_cpp.llama_model_default_params = mapped
    generator = random.Random(args.seed)
    engine = compare_llama_cpp.LlamaCpp(args.model, args.streams * (args.prompt_tokens + args.new_tokens) + 64, args.streams)
    rates = []
    for _ in range(args.repetitions + 1):
        engine.clear()
        draw = lambda: generator.randrange(engine.vocab_size)
        for s in range(args.streams):
            engine.decode([(draw(), p, s, p + 1 == args.prompt_tokens) for p in range(args.prompt_tokens)])
        start = time.perf_counter()
        for step in range(args.new_tokens):
            engine.decode([(draw(), args.prompt_tokens + step, s, True) for s in range(args.streams)])
        rates.append(args.streams * args.new_tokens / (time.perf_counter() - start))
    print(json.dumps({"tokens_per_second": statistics.median(rates[1:])}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--limit", type=float, required=True, help="bytes of the group")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--prefill", type=int, default=0, help="tokens of a prompt to measure as well; 0: none")
    parser.add_argument("--flags", default="", help="more flags for bench, in one word list")
    parser.add_argument("--against", default="", help="another build of the program, in the same rounds")
    parser.add_argument("--llama-python", default="", help="a Python that has llama-cpp-python")
    parser.add_argument("--llama-repetitions", type=int, default=3)
    parser.add_argument("--disk-seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_only:
        llama(args)
        return

    shape = ["--streams", str(args.streams), "--prompt-tokens", str(args.prompt_tokens), "--new-tokens", str(args.new_tokens)]
    programs = {"ours": args.program}
    if args.against:
        programs["against"] = args.against
    group = Group(int(args.limit))
    rows = []
    try:
        for number in range(args.rounds):
            for name, program in programs.items():
                drop_cache(args.model)
                before = disk_bandwidth(args.model, args.disk_seconds)
                done = group.run([program, "bench", args.model, "--json", *shape, "--repetitions", str(args.repetitions), "--prefill",
                                  str(args.prefill or 16), "--seed", str(args.seed + number), *args.flags.split()])
                bandwidth = (before + disk_bandwidth(args.model, args.disk_seconds)) / 2
                if "error" in done:
                    print(f"round {number + 1}, {name}: {done['error']}", file=sys.stderr)
                    continue
                for row in done["rows"]:
                    if row["kind"] == "prefill" and not args.prefill:
                        continue
                    read = row.get("file_bytes_per_step", 0.0)  # older builds do not say
                    rows.append({"round": number + 1, "program": name, "row": row["kind"], **{key: done[key] for key in ("held_peak_mb", "limit_hits", "killed")}, "tokens_per_second": row["tokens_per_second"]["median"],
                                 "file_mb_per_step": read / 1e6, "disk_gb_per_second": bandwidth / 1e9,
                                 "share_of_roofline": read / bandwidth / (row["step_ms"] / 1e3)})
                    print(rows[-1], file=sys.stderr)
            if args.llama_python:
                drop_cache(args.model)
                done = group.run([args.llama_python, __file__, args.program, args.model, "--limit", "0", *shape, "--repetitions",
                                  str(args.llama_repetitions), "--seed", str(args.seed + number), "--llama-only"])
                rows.append({"round": number + 1, "program": "llama.cpp", "row": "decode", **done})
                print(rows[-1], file=sys.stderr)
    finally:
        print(json.dumps({"limit": args.limit, "rows": rows}, indent=2))
        group.close()


if __name__ == "__main__":
    main()
