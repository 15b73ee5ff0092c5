#!/usr/bin/env python3
"""Runs `thermocline bench` and llama.cpp (llama-cpp-python) in turns on the same file and prints medians, ratios and their spread as JSON.

    python3 tests/bench/compare_llama_cpp.py build/server/thermocline MODEL.gguf [--rounds 5]

Both compute the same work: one random prompt, then 1, 8, ... streams that generate at the same time, each with random tokens of its own that
are forced on the model (left alone, random models fall into loops that keep hitting the same experts). Both use all cores. Build
llama-cpp-python on the machine itself (pip install --no-binary llama-cpp-python; on processors with AMX set CMAKE_ARGS to GGML_NATIVE=OFF and
the AVX-512 switches: its AMX path crashes).
"""
import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time


class LlamaCpp:
    """llama.cpp's C interface: a model and a context for a number of sequences."""

    def __init__(self, model, tokens, streams):
        import llama_cpp
        self.api = llama_cpp
        silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        self.silent = silent
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        threads = len(os.sched_getaffinity(0))
        params.n_ctx = tokens
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, "flash_attn_type"):
            params.flash_attn_type = 1
        else:
            params.flash_attn = True
        if hasattr(params, "kv_unified"):
            params.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def decode(self, entries):
        """entries: (token, position, sequence, logits wanted) each."""
        batch = self.api.llama_batch_init(len(entries), 0, 1)
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, logits) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = logits
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.api.llama_synchronize(self.context)
        self.api.llama_batch_free(batch)


def llama(model, args):
    """One round of llama.cpp, tokens a second of each row. Runs in a process of its own."""
    generator = random.Random(1)
    length = max(args.prefill, max(args.streams) * (args.prompt_tokens + args.new_tokens + 1))
    engine = LlamaCpp(model, length + 64, max(args.streams))
    draw = lambda: generator.randrange(engine.vocab_size)
    rates = {}
    for attempt in range(2):  # the first one warms up
        engine.clear()
        prompt = [(draw(), p, 0, p + 1 == args.prefill) for p in range(args.prefill)]
        start = time.perf_counter()
        for begin in range(0, args.prefill, 512):
            engine.decode(prompt[begin:begin + 512])
        rates["prefill"] = args.prefill / (time.perf_counter() - start)
    for streams in args.streams:
        engine.clear()
        for s in range(streams):
            engine.decode([(draw(), p, s, p + 1 == args.prompt_tokens) for p in range(args.prompt_tokens)])
        start = time.perf_counter()
        for step in range(args.new_tokens):
            engine.decode([(draw(), args.prompt_tokens + step, s, True) for s in range(streams)])
        rates[f"decode_{streams}"] = streams * args.new_tokens / (time.perf_counter() - start)
    return rates


def ours(program, model, args):
    out = subprocess.run([program, "bench", model, "--json", "--repetitions", "1", "--prefill", str(args.prefill), "--streams",
                          ",".join(map(str, args.streams)), "--prompt-tokens", str(args.prompt_tokens), "--new-tokens",
                          str(args.new_tokens), "--kv-tokens",
                          str(max(args.prefill, max(args.streams) * (args.prompt_tokens + args.new_tokens + 64)))],
                         capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--streams", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_only:
        print(json.dumps(llama(args.model, args)))
        return

    rounds = []
    for number in range(args.rounds):
        mine = ours(args.program, args.model, args)
        theirs = subprocess.run([sys.executable, __file__, args.program, args.model, "--prefill", str(args.prefill), "--streams",
                                 ",".join(map(str, args.streams)), "--prompt-tokens", str(args.prompt_tokens), "--new-tokens",
                                 str(args.new_tokens), "--llama-only"], capture_output=True, text=True, check=True)
        rounds.append((mine, json.loads(theirs.stdout.strip().splitlines()[-1])))
        line = [f"{row['kind']} {row['streams']}: {row['tokens_per_second']['median']:.1f} / "
                f"{rounds[-1][1]['prefill' if row['kind'] == 'prefill' else 'decode_%d' % row['streams']]:.1f}"
                for row in mine["rows"]]
        print(f"round {number + 1}, ours / llama.cpp: " + ", ".join(line), file=sys.stderr)
    report = {"model": args.model, "rounds": args.rounds, "backend": rounds[0][0]["backend"], "rows": []}
    for i, row in enumerate(rounds[0][0]["rows"]):
        key = "prefill" if row["kind"] == "prefill" else f"decode_{row['streams']}"
        mine = [r[0]["rows"][i] for r in rounds]
        theirs = [r[1][key] for r in rounds]
        rates = [r["tokens_per_second"]["median"] for r in mine]
        report["rows"].append({
            "row": key, "tokens": row["tokens"], "ours": spread(rates), "llama_cpp": spread(theirs),
            "ratio": spread([a / b for a, b in zip(rates, theirs)]),
            **{name: spread([r[name] for r in mine])
               for name in ("gb_per_second", "read_gb_per_second", "share_of_read", "gop_per_second", "int8_gop_per_second",
                            "share_of_int8", "share_of_bound", "experts_per_layer")}})
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
