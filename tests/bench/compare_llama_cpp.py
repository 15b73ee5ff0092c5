#!/usr/bin/env python3
"""Runs speed_bench and llama.cpp (llama-cpp-python) in turns on the same file and prints medians, ratios and their spread as JSON.

    python3 tests/bench/compare_llama_cpp.py build/tests/speed_bench MODEL.gguf [--rounds 5]

Both get the same number of prompt and new tokens, drawn at random, and all cores. Build llama-cpp-python on the machine itself (pip install
--no-binary llama-cpp-python; with AMX processors set CMAKE_ARGS to GGML_NATIVE=OFF and the AVX-512 switches: its AMX path crashes).
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time


def llama(model, prompt_tokens, new_tokens):
    """Prefill and decode speed of llama.cpp, in tokens a second. Runs in a process of its own."""
    from llama_cpp import Llama
    threads = len(os.sched_getaffinity(0))
    llm = Llama(model_path=model, n_ctx=prompt_tokens + new_tokens + 8, n_batch=512, n_ubatch=512, n_threads=threads,
                n_threads_batch=threads, flash_attn=True, verbose=False)
    generator = random.Random(1)
    vocab = llm.n_vocab()
    prompt = [generator.randrange(vocab) for _ in range(prompt_tokens)]
    llm.eval(prompt[:16])
    llm.reset()
    start = time.perf_counter()
    llm.eval(prompt)
    prefill = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(new_tokens - 1):
        llm.eval([generator.randrange(vocab)])
    decode = time.perf_counter() - start
    return {"prefill_tokens_per_second": prompt_tokens / prefill,
            "decode_tokens_per_second": (new_tokens - 1) / decode}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--llama-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_only:
        print(json.dumps(llama(args.model, args.prompt_tokens, args.new_tokens)))
        return

    sizes = [str(args.prompt_tokens), str(args.new_tokens)]
    runs = {"ours": [], "llama_cpp": []}
    for number in range(args.rounds):
        ours = subprocess.run([args.bench, args.model, *sizes], capture_output=True, text=True, check=True)
        runs["ours"].append(json.loads(ours.stdout))
        theirs = subprocess.run([sys.executable, __file__, args.bench, args.model, "--prompt-tokens", sizes[0],
                                 "--new-tokens", sizes[1], "--llama-only"], capture_output=True, text=True, check=True)
        runs["llama_cpp"].append(json.loads(theirs.stdout.strip().splitlines()[-1]))
        print(f"round {number + 1}: ours {runs['ours'][-1]['prefill_tokens_per_second']:.1f} / "
              f"{runs['ours'][-1]['decode_tokens_per_second']:.1f}, llama.cpp "
              f"{runs['llama_cpp'][-1]['prefill_tokens_per_second']:.1f} / "
              f"{runs['llama_cpp'][-1]['decode_tokens_per_second']:.1f}", file=sys.stderr)
    report = {"model": args.model, "rounds": args.rounds, "prompt_tokens": args.prompt_tokens,
              "new_tokens": args.new_tokens, "backend": runs["ours"][0]["backend"],
              "read_bandwidth_gb_per_second": statistics.median(
                  r["read_bandwidth_gb_per_second"] for r in runs["ours"])}
    for key in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        ours = [r[key] for r in runs["ours"]]
        theirs = [r[key] for r in runs["llama_cpp"]]
        ratios = [a / b for a, b in zip(ours, theirs)]
        report[key] = {"ours": statistics.median(ours), "llama_cpp": statistics.median(theirs),
                       "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
