#!/usr/bin/env python3
"""Every command and every flag of the thermocline program, with a model whose every logit is known
(tests/data/tools/make_alphabet.py), so that each answer is checked by value.

    commands_test.py THERMOCLINE THERMOCLINE_CLIENT SOURCE_DIR
"""
import json
import math
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CLIENT, SOURCE = sys.argv[1:4]
MODEL = f"{SOURCE}/tests/data/alphabet.gguf"
GOLDEN = f"{SOURCE}/tests/data/golden"
LOGPROB_OF_NEXT = 4.0 - math.log(math.exp(4.0) + math.exp(2.0) + 62.0)  # logits 4, 2 and 62 times 0

ENGINE_FLAGS = {"backend": "cpu", "threads": "0", "no-pinning": None, "cpu-isa": "", "calibration": "", "activations": "",
                "exact": None, "kv-dtype": "", "mla": "absorbed", "context": "0", "kv-tokens": "0", "block-size": "16",
                "max-batch-tokens": "0", "max-num-seqs": "64", "max-waiting": "256", "host-experts": "-1", "memory": "",
                "expert-policy": "lru", "placement": ""}
SAMPLING_FLAGS = {"temperature": "0", "top-k": "0", "top-p": "1", "min-p": "0", "repetition-penalty": "1", "seed": "0"}
# What may be written behind each command, with its default; None: a switch.
FLAGS = {
    "serve": {**ENGINE_FLAGS, "listen": "127.0.0.1:50051", "control-listen": "127.0.0.1:50052",
              "metrics-listen": "127.0.0.1:9464", "drain-seconds": "60", "log-level": "info"},
    "chat": {**ENGINE_FLAGS, **SAMPLING_FLAGS, "system": "", "max-tokens": "512"},
    "generate": {**ENGINE_FLAGS, **SAMPLING_FLAGS, "prompt": "", "tokens": "", "max-tokens": "128", "stop": "",
                 "ignore-eos": None, "json": None},
    "score": {**ENGINE_FLAGS, "tokens": "", "json": None, "logits": None},
    "perplexity": {**ENGINE_FLAGS, "file": "", "chunk": "512", "max-chunks": "0", "json": None},
    "bench": {**ENGINE_FLAGS, "prefill": "[512]", "streams": "[1,8,32]", "prompt-tokens": "32", "new-tokens": "32",
              "repetitions": "3", "seed": "1", "buffer-mib": "0", "shape": "", "calibrate": "", "json": None},
    "inspect": {"json": None},
    "tokenize": {"file": ""},
    "render": {"file": ""},
    "convert": {"type": "auto", "force": None},
    "quantize": {"tensor-type": "", "imatrix": "", "pure": None, "requantize": None, "threads": "0", "force": None, "json": None},
    "healthcheck": {"address": "127.0.0.1:50051", "timeout": "5"},
}


def run(*args, stdin="", env=None):
    return subprocess.run([PROGRAM, *args], input=stdin, capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})})


class Case(unittest.TestCase):
    def out(self, *args, **more):
        result = run(*args, **more)
        self.assertEqual(result.returncode, 0, (args, result.stderr))
        return result.stdout

    def refused(self, part, *args, **more):
        result = run(*args, **more)
        self.assertNotEqual(result.returncode, 0, args)
        self.assertEqual(result.stdout, "", args)
        self.assertIn(part, result.stderr, args)

    def folder(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)


class Flags(Case):
    def test_each_command_has_its_flags_with_defaults_and_environment_variables(self):
        for command, flags in FLAGS.items():
            text = self.out(command, "--help")
            found = dict(re.findall(r"^  --([\w-]+)(.*)$", text, re.MULTILINE))
            self.assertEqual(set(found), {*flags, "config"}, command)
            for name, default in flags.items():
                variable = "THERMOCLINE_" + name.upper().replace("-", "_")
                self.assertIn(f"(Env:{variable})", found[name], (command, name))
                shown = re.match(r"(?: (?:INT|UINT|FLOAT|TEXT)(?:=(\S+))?)?", found[name])
                self.assertEqual(shown.group(1) or "", default or "", (command, name))
                self.assertEqual(found[name].startswith(" (Env"), default is None, (command, name))
            self.assertNotIn("Env", found["config"])
            self.assertRegex(text, r"(?m)^  -h,--help  ")

    def test_the_program_says_its_version_and_wants_a_command(self):
        self.assertRegex(self.out("--version"), r"^\d+\.\d+\.\d+\n$")
        self.refused("subcommand", )
        self.refused('"nonsense" is no command', "nonsense")
        self.refused("--nonsense", "generate", "--nonsense")

    def test_values_outside_their_range_are_refused_with_what_is_allowed(self):
        generate = ("generate", MODEL, "--prompt", "abc")
        for flags, part in [(("--threads", "-1"), "-1"), (("--block-size", "0"), "block"), (("--context", "-1"), "-1"),
                            (("--max-batch-tokens", "-1"), "max_batch_tokens = -1"), (("--memory", "2g"), "without a unit"), (("--memory", "0"), "without a unit"), (("--memory", "1MB"), "the model does not fit into 1.0 MB of memory"), (("--max-num-seqs", "0"), "max_num_seqs = 0"),
                            (("--max-waiting", "0"), "max_waiting = 0"), (("--host-experts", "0"), "1 to num_experts = 4"), (("--host-experts", "5"), "num_experts = 4"),
                            (("--expert-policy", "fifo"), "lru"), (("--mla", "dense"), "absorbed and plain"),
                            (("--exact", "--activations", "int8"), "contradict"), (("--kv-tokens", "-1"), "kv_tokens = -1"),
                            (("--context", "2"), "2"), (("--top-p", "0"), "top_p"), (("--top-k", "-1"), "top_k"),
                            (("--min-p", "1.5"), "min_p"), (("--repetition-penalty", "0"), "repetition_penalty"),
                            (("--max-tokens", "-1"), "max_tokens"), (("--threads", "many"), "many")]:
            self.refused(part, *generate, *flags)

    def test_experts_are_placed_by_a_file(self):
        path = self.folder() / "placement"
        generate = ("generate", MODEL, "--prompt", "abc")
        path.write_text("* 0 host\n* 1-2 disk  # the third may lie anywhere\n")
        self.assertEqual(self.out(*generate, "--placement", str(path)), self.out(*generate))
        self.refused("cannot be given with it", *generate, "--placement", str(path), "--host-experts", "2")
        for text, part in [("0 4 host", 'line 1: experts "4", but numbers and ranges of 0 to 3'), ("\n* * gpu", 'line 2: place "gpu"'),
                           ("* 0 device", "on the device, but there is none; host and disk are allowed")]:
            path.write_text(text)
            self.refused(part, *generate, "--placement", str(path))
        self.refused("/nowhere/placement", *generate, "--placement", "/nowhere/placement")

    def test_a_config_file_is_found_however_it_is_named(self):
        path = self.folder() / "c.yaml"
        path.write_text("max-tokens: 2\n")
        generate = ("generate", MODEL, "--prompt", "abc")
        self.assertEqual(self.out(*generate), "defghijklmnopqrstuvwxyz\n")
        self.assertEqual(self.out(*generate, "--config", str(path)), "de\n")
        self.assertEqual(self.out(*generate, f"--config={path}"), "de\n")
        self.assertEqual(self.out(*generate, env={"THERMOCLINE_CONFIG": str(path)}), "de\n")
        self.assertEqual(self.out(*generate, "--config", str(path), "--max-tokens", "1"), "d\n")
        self.assertEqual(self.out(*generate, "--config", str(path), env={"THERMOCLINE_MAX_TOKENS": "3"}), "def\n")
        path.write_text(f"model: {MODEL}\nprompt: xy\nmax-tokens: 1\n")
        self.assertEqual(self.out("generate", "--config", str(path)), "z\n")
        for text in ("- a\n", "help: true\n", "config: x\n", "max-tokens: [1]\n"):
            path.write_text(text)
            self.refused(str(path), *generate, "--config", str(path))

    def test_the_engine_runs_as_told(self):
        for flags, part in [(("--threads", "1"), "1 threads"), (("--threads", "3"), "3 threads"), (("--cpu-isa", "scalar"), "scalar"),
                            (("--backend", "reference"), "reference"), (("--exact",), "activations f32"),
                            (("--activations", "int8"), "activations int8")]:
            self.assertIn(part, json.loads(self.out("bench", MODEL, "--json", "--prefill", "2", "--streams", "1", "--prompt-tokens",
                                                    "1", "--new-tokens", "1", "--repetitions", "1", "--buffer-mib", "1",
                                                    "--kv-tokens", "64", *flags))["backend"])


class Generate(Case):
    def generate(self, *args):
        return self.out("generate", MODEL, *args)

    def test_text_tokens_and_json(self):
        self.assertEqual(self.generate("--prompt", "w"), "xyz\n")
        self.assertEqual(self.generate("--tokens", "29"), "xyz\n")
        self.assertEqual(json.loads(self.generate("--prompt", "w", "--json")), {"tokens": [30, 31, 32, 1], "text": "xyz"})
        self.assertEqual(self.generate("--prompt", "0"), "1234567890" * 12 + "12345678\n")  # 128 tokens

    def test_what_ends_it(self):
        self.assertEqual(self.generate("--prompt", "x", "--max-tokens", "0"), "\n")
        self.assertEqual(self.generate("--prompt", "a", "--stop", "q", "--stop", "e"), "bcd\n")
        self.assertEqual(self.generate("--prompt", "y", "--ignore-eos", "--max-tokens", "4"), "zab\n")

    def test_sampling(self):
        hot = ("--prompt", "a", "--temperature", "50", "--max-tokens", "20")
        for flags in (("--top-k", "1"), ("--top-p", "0.001"), ("--min-p", "1")):
            self.assertEqual(self.generate(*hot, *flags), "bcdefghijklmnopqrstu\n")
        seeded = [self.generate(*hot, "--ignore-eos", "--seed", seed) for seed in "1123"]
        self.assertEqual(seeded[0], seeded[1])
        self.assertEqual(len(set(seeded)), 3)
        # What follows 9 has 4 and what follows that 2; but 0 has been there.
        self.assertEqual(self.generate("--prompt", "09", "--max-tokens", "1"), "0\n")
        self.assertEqual(self.generate("--prompt", "09", "--max-tokens", "1", "--repetition-penalty", "2.1"), "1\n")

    def test_a_request_that_fails_says_so(self):
        self.refused("exactly one", "generate", MODEL, "--prompt", "a", "--tokens", "1")
        self.refused("context", "generate", MODEL, "--prompt", "abcdefgh", "--context", "4")
        broken = self.folder() / "broken.gguf"
        data = bytearray(pathlib.Path(MODEL).read_bytes())
        data[-64 * 64 * 4:] = struct.pack("<f", math.nan) * (64 * 64)  # the last tensor: the embeddings
        broken.write_bytes(data)
        self.refused("NaN", "generate", str(broken), "--prompt", "abc")


class Score(Case):
    def test_logprobs_and_logits_by_value(self):
        lines = [line.split("\t") for line in self.out("score", MODEL, "--tokens", "7,8,9,7").splitlines()]
        self.assertEqual([token for token, _ in lines], ["8", "9", "7"])
        expected = [LOGPROB_OF_NEXT, LOGPROB_OF_NEXT, LOGPROB_OF_NEXT - 4.0]
        for (_, value), logprob in zip(lines, expected):
            self.assertAlmostEqual(float(value), logprob, places=5)
        out = json.loads(self.out("score", MODEL, "--tokens", "7,8,9,7", "--json", "--logits"))
        self.assertEqual([round(v, 5) for v in out["logprobs"]], [round(v, 5) for v in expected])
        for token, row in zip((7, 8, 9, 7), out["logits"]):
            self.assertEqual([round(v, 4) for v in row[token + 1:token + 3]], [4.0, 2.0])
            self.assertEqual(sum(abs(v) > 1e-4 for v in row), 2)
        self.assertEqual(json.loads(self.out("score", MODEL, "--tokens", "7", "--json")), {"logprobs": []})

    def test_it_is_exact_unless_told_otherwise(self):
        model = f"{GOLDEN}/quantised/qwen3_moe-q4_k_m.gguf"
        score = lambda *flags: self.out("score", model, "--tokens", "1,2,3,4", *flags)
        self.assertEqual(score(), score("--exact", "--kv-dtype", "f32"))
        self.assertNotEqual(score(), score("--activations", "int8"))
        self.assertNotEqual(score(), score("--kv-dtype", "bf16"))


class Perplexity(Case):
    def test_of_what_the_model_knows_and_what_not(self):
        text = self.folder() / "text"
        text.write_text("abcdefghijklmnopqrstuvwxyz")
        of = lambda *flags: self.out("perplexity", MODEL, "--file", str(text), *flags)
        self.assertEqual(of("--chunk", "8"), f"perplexity {math.exp(-LOGPROB_OF_NEXT):.4f} over 9 tokens\n")
        self.assertEqual(of("--chunk", "26", "--max-chunks", "2"), f"perplexity {math.exp(-LOGPROB_OF_NEXT):.4f} over 12 tokens\n")
        out = json.loads(of("--chunk", "4", "--max-chunks", "5", "--json"))
        self.assertEqual((out["tokens_scored"], out["chunks"], out["chunk"]), (5, 5, 4))
        text.write_text("abcdaaaa")
        self.assertEqual(of("--chunk", "4"), f"perplexity {math.exp(2.0 - LOGPROB_OF_NEXT):.4f} over 2 tokens\n")


class Inspect(Case):
    def test_json_by_value(self):
        out = json.loads(self.out("inspect", MODEL, "--json"))
        for key, value in {"path": MODEL, "format": "gguf", "files": [MODEL], "tensor_bytes": 183808, "supported": True,
                           "needs": {"weight_bytes": 183808, "expert_bytes": 98304, "kv_bytes_per_token_f16": 128,
                                     "state_bytes_per_sequence": 0, "kv_bytes_full_context_f16": 2097152}}.items():
            self.assertEqual(out[key], value)
        fits = out["fits"]
        self.assertTrue(fits["all_weights"])
        self.assertEqual(fits["kv_tokens_f16"], (fits["memory_available_bytes"] - 183808) // 128)
        metadata = out["metadata"]
        self.assertEqual(metadata["qwen3moe.expert_used_count"], 2)
        self.assertEqual(metadata["tokenizer.ggml.token_type"], {"length": 64, "first": [3] * 7 + [1]})
        template = metadata["tokenizer.chat_template"]
        self.assertEqual((len(template), template[-3:]), (203, "..."))
        self.assertEqual(out["tensors"][0], {"name": "blk.0.attn_k.weight", "type": "F32", "shape": [16, 64], "bytes": 4096})
        self.assertEqual(sum(tensor["bytes"] for tensor in out["tensors"]), 183808)
        self.assertGreater(json.loads(self.out("inspect", f"{GOLDEN}/qwen3_next", "--json"))["needs"]["state_bytes_per_sequence"], 0)

    def test_text_by_value(self):
        lines = self.out("inspect", MODEL).splitlines()
        self.assertEqual(lines[0], f"{MODEL}: gguf, 1 file(s), 0.2 MiB of tensors")
        self.assertEqual(lines[1], "supported; memory: weights 0.2 MiB (experts 0.1 MiB), KV cache 0.125 MiB per 1024 tokens in f16")
        self.assertRegex(lines[2], r"^here: \d+\.\d MiB available, all weights fit, with KV cache for \d+ tokens$")
        self.assertEqual(lines[3:5], ["", "metadata"])
        self.assertIn("  qwen3moe.block_count                             2", lines)
        self.assertIn('  tokenizer.ggml.merges                            {"length":0,"first":[]}', lines)
        self.assertIn("  blk.0.ffn_up_exps.weight                         F32     [4,16,64]                     16384", lines)
        self.assertIn("fixed-size state: ", self.out("inspect", f"{GOLDEN}/qwen3_next"))
        self.assertNotIn("fixed-size state: ", self.out("inspect", MODEL))

    def test_a_model_that_memory_cannot_hold(self):
        # The alphabet with experts of 1.6 times what is available, in a file that has no blocks on disk.
        available = json.loads(self.out("inspect", MODEL, "--json"))["fits"]["memory_available_bytes"]
        width = int(1.6 * available) // 6 // (4 * 64 * 4)
        stack = width * 4 * 64 * 4
        data = pathlib.Path(MODEL).read_bytes()
        for i, name in enumerate(re.findall(rb"blk\.\d\.ffn_(?:up|gate|down)_exps\.weight", data)):
            at = data.index(name) + len(name)
            dims = (width, 64, 4) if b"down" in name else (64, width, 4)
            data = data[:at] + struct.pack("<IQQQIQ", 3, *dims, 0, (i + 1) * stack) + data[at + 40:]
        path = self.folder() / "large.gguf"
        path.write_bytes(data)
        os.truncate(path, len(data) + 7 * stack)
        out = json.loads(self.out("inspect", str(path), "--json"))
        self.assertEqual((out["needs"]["expert_bytes"], out["needs"]["weight_bytes"]), (6 * stack, 6 * stack + 183808 - 98304))
        fits = out["fits"]
        held = 4 * (fits["memory_available_bytes"] - (183808 - 98304)) // (6 * stack)
        self.assertEqual((fits["all_weights"], fits["kv_tokens_f16"], fits["host_experts"]), (False, 0, held))
        self.assertTrue(1 <= held <= 3)
        self.assertRegex(self.out("inspect", str(path)), r"(?m)^here: \d+\.\d MiB available, about [123] experts of each layer fit, others are read when needed$")

    def test_a_folder_and_a_model_that_is_not_supported(self):
        out = json.loads(self.out("inspect", f"{GOLDEN}/qwen3_moe", "--json"))
        self.assertEqual((out["format"], out["metadata"]["architectures"]), ("safetensors", ["Qwen3MoeForCausalLM"]))
        self.assertGreater(out["needs"]["expert_bytes"], out["needs"]["weight_bytes"] // 2)
        unknown = self.folder() / "unknown.gguf"
        unknown.write_bytes(pathlib.Path(MODEL).read_bytes().replace(b"qwen3moe", b"qwen9moe"))
        out = json.loads(self.out("inspect", str(unknown), "--json"))
        self.assertFalse(out["supported"])
        self.assertIn("qwen9moe", out["reason"])
        self.assertNotIn("needs", out)
        self.assertIn("not supported: ", self.out("inspect", str(unknown)).splitlines()[1])
        self.refused("/nowhere", "inspect", "/nowhere")


class Text(Case):
    def lines(self, *objects):
        path = self.folder() / "in.jsonl"
        path.write_text("".join((o if isinstance(o, str) else json.dumps(o)) + "\n" for o in objects))
        return str(path)

    def test_tokenize(self):
        out = self.out("tokenize", MODEL, "--file", self.lines({"text": "ab c"}, "", {"text": "<|note|>!"}))
        self.assertEqual([json.loads(line) for line in out.splitlines()],
                         [{"ids": [7, 8, 43, 9], "decoded": "ab c"}, {"ids": [2, 63], "decoded": "<|note|>!"}])
        folder = f"{SOURCE}/tests/data/tokenizer"
        named = next(pathlib.Path(folder).rglob("tokenizer.json")).parent
        self.assertIn('"decoded":"ab"', self.out("tokenize", str(named), "--file", self.lines({"text": "ab"})))

    def test_render(self):
        messages = {"messages": [{"role": "user", "content": "ab"}], "add_generation_prompt": True}
        out = self.out("render", MODEL, "--file", self.lines({"input": messages}, {"input": {"messages": 1}}))
        first, second = (json.loads(line) for line in out.splitlines())
        self.assertEqual(first, {"text": "<s>user:ab"})
        self.assertEqual(list(second), ["error"])
        source = self.folder() / "t.jinja"
        source.write_text("{{ bos_token }}{{ messages[0].role }}")
        out = self.out("render", str(source), "--file", self.lines({"input": {**messages, "bos_token": "B"}}))
        self.assertEqual(out, '{"text":"Buser"}\n')

    def test_errors_name_file_and_line(self):
        for command, good, key in ((("tokenize", MODEL), {"text": "a"}, "text"), (("render", MODEL), {"input": {"messages": []}}, "input")):
            for bad, part in (({}, f'"{key}" is missing'), ({key: 3}, f'"{key}" is missing'), ("[1]", "not a JSON object"),
                              ("{", "not a JSON object")):
                path = self.lines(good, "", bad)
                result = run(*command, "--file", path)
                self.assertEqual(result.returncode, 1)
                self.assertIn(f"{path}:3: {part}", result.stderr)
                self.assertEqual(len(result.stdout.splitlines()), 1)
        self.refused("/nowhere", "tokenize", MODEL, "--file", "/nowhere")
        self.refused("no chat template", "render", self.without_template(), "--file", self.lines({"input": {}}))

    def without_template(self):
        path = self.folder() / "plain.gguf"
        path.write_bytes(pathlib.Path(MODEL).read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_tomplate"))
        return str(path)

    def test_chat_keeps_the_conversation(self):
        self.assertEqual(self.out("chat", MODEL, stdin="uv\n\nxy\n"), "wxyz\nz\n")
        self.assertEqual(self.out("chat", MODEL, "--max-tokens", "2", "--system", "s", stdin="a\n"), "bc\n")
        # Of the second turn the prompt holds the first one; that of a system message fills the context.
        self.refused("context", "chat", MODEL, "--context", "12", "--system", "abcdefgh", stdin="a\n")
        self.assertEqual(self.out("chat", MODEL, "--context", "12", "--max-tokens", "1", stdin="a\n"), "b\n")
        second = run("chat", MODEL, "--context", "12", "--max-tokens", "1", stdin="a\nb\n")
        self.assertEqual((second.returncode, second.stdout), (1, "b\n"))
        self.refused("no chat template", "chat", self.without_template(), stdin="a\n")


class Files(Case):
    def types(self, path):
        return {t["name"]: t["type"] for t in json.loads(self.out("inspect", str(path), "--json"))["tensors"]}

    def test_convert(self):
        output = self.folder() / "out.gguf"
        for type_, expected in (("auto", "BF16"), ("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")):
            self.assertEqual(self.out("convert", f"{GOLDEN}/qwen3_moe", str(output), "--type", type_, "--force"), "")
            self.assertEqual(self.types(output)["blk.0.attn_q.weight"], expected)
        score = lambda model: self.out("score", str(model), "--tokens", "1,2,3")
        self.assertEqual(score(output), score(f"{GOLDEN}/qwen3_moe"))
        before = output.read_bytes()
        self.refused("--force", "convert", f"{GOLDEN}/qwen3_moe", str(output))
        self.assertEqual(output.read_bytes(), before)
        self.refused("auto, f32, f16 and bf16", "convert", f"{GOLDEN}/qwen3_moe", str(output), "--type", "q8_0")
        self.refused("/nowhere", "convert", "/nowhere", str(output), "--force")

    def test_quantize(self):
        output, second = (self.folder() / name for name in ("out.gguf", "second.gguf"))
        quantize = ("quantize", MODEL, str(output))
        self.assertEqual(self.out(*quantize, "q8_0"), "0.2 MB of weights became 0.1 MB: F16 0.0 MB F32 0.0 MB Q8_0 0.0 MB\n")
        self.refused("--force", *quantize, "q8_0")
        out = json.loads(self.out(*quantize, "q8_0", "--force", "--json"))
        self.assertEqual((out["input_bytes"], out["output_bytes"]), (183808, sum(out["bytes_by_type"].values())))
        self.assertEqual(self.types(output)["output.weight"], "Q8_0")
        self.out(*quantize, "q8_0", "--force", "--tensor-type", "out.*=f16", "--tensor-type", ".*=f32")
        types = self.types(output)
        self.assertEqual((types["output.weight"], types["token_embd.weight"]), ("F16", "F32"))
        self.out(*quantize, "q4_0", "--force", "--threads", "3")
        again = ("quantize", str(output), str(second), "q8_0", "--force")
        kept = run(*again)
        self.assertIn("13 tensors are quantised already and stay as they are", kept.stderr)
        self.assertEqual(self.types(second), self.types(output))
        self.out(*again, "--requantize")
        self.assertEqual(self.types(second)["blk.0.attn_q.weight"], "Q8_0")
        mixed, pure = [], []
        for flags, seen in (((), mixed), (("--pure",), pure)):
            self.out("quantize", f"{GOLDEN}/quantised/qwen3_moe-q4_k_m.gguf", str(output), "q4_0", "--force", "--requantize", *flags)
            seen.append(self.types(output))
        self.assertNotEqual(mixed, pure)
        for rule in ("x", "=q8_0", "a=q9"):
            self.refused("PATTERN=TYPE" if rule != "a=q9" else "q9", *quantize, "q8_0", "--force", "--tensor-type", rule)
        self.refused("q9", *quantize, "q9", "--force")
        self.refused("/nowhere", *quantize, "q8_0", "--force", "--imatrix", "/nowhere")


class Bench(Case):
    def test_its_rows_and_the_tables(self):
        # Streams long enough to meet an end token among 64, which must not end them.
        bench = ("bench", MODEL, "--prefill", "3,5", "--streams", "2,8", "--prompt-tokens", "2", "--new-tokens", "64", "--repetitions",
                 "2", "--kv-tokens", "1024", "--kv-dtype", "f16")
        out = json.loads(self.out(*bench, "--json", "--buffer-mib", "1"))
        rows = out["rows"]
        self.assertEqual([(r["kind"], r["streams"], r["tokens"]) for r in rows],
                         [("prefill", 1, 3), ("prefill", 1, 5), ("decode", 2, 64), ("decode", 8, 64)])
        # Of weights: 2 layers of 6400 in attention and router and 4 experts of 3072 with 2 chosen, 4096 in the head; in F32.
        for row, tokens, rows_of_logits, context in ((rows[0], 3, 1, 1.5), (rows[1], 5, 1, 2.5), (rows[2], 2, 2, 34), (rows[3], 8, 8, 34)):
            self.assertEqual(row["ops_per_step"], 2 * (tokens * 2 * (6400 + 2 * 3072) + rows_of_logits * 4096))
            read = 2 * 6400 + 4096 + 2 * row["experts_per_layer"] * 3072
            self.assertAlmostEqual(row["bytes_per_step"], 4 * read + row["streams"] * context * 128, places=3)
            self.assertTrue(2 <= row["experts_per_layer"] <= min(4, 2 * tokens))
            self.assertEqual(set(row["stage_ms"]), {"embed", "attention", "router", "experts", "combine", "head", "sample"})
            self.assertTrue(all(ms > 0 for ms in row["stage_ms"].values()))
            self.assertLessEqual(sum(row["stage_ms"].values()), row["step_ms"] * 1.001)
        for row in rows:
            rate = row["tokens_per_second"]
            self.assertLessEqual(rate["p10"], rate["median"])
            self.assertLessEqual(rate["median"], rate["p90"])
            self.assertAlmostEqual(row["share_of_read"], row["gb_per_second"] / row["read_gb_per_second"], places=9)
            self.assertAlmostEqual(row["share_of_int8"], row["gop_per_second"] / row["int8_gop_per_second"], places=9)
            self.assertAlmostEqual(row["gb_per_second"], row["bytes_per_step"] / row["step_ms"] / 1e6, places=6)
            self.assertAlmostEqual(row["gop_per_second"], row["ops_per_step"] / row["step_ms"] / 1e6, places=6)
        text = self.out(*bench, "--buffer-mib", "1")
        self.assertEqual(len(re.findall(r"(?m)^prefill  ", text)), 4)  # two tables
        self.assertEqual(len(re.findall(r"(?m)^decode  ", text)), 4)
        self.refused("contradict", *bench, "--shape", "tiny:q8_0")
        for value in ("-1", "65537"):
            self.refused(f"buffer = {value} MiB", *bench, "--buffer-mib", value)


class Serve(Case):
    def test_flags_reach_the_server(self):
        folder = self.folder()
        address, control = f"unix:{folder}/data", f"unix:{folder}/control"
        server = subprocess.Popen([PROGRAM, "serve", MODEL, "--listen", address, "--control-listen", control, "--metrics-listen", "",
                                   "--kv-tokens", "64", "--block-size", "8", "--context", "20", "--host-experts", "2", "--threads",
                                   "1", "--log-level", "error"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.kill)
        deadline = time.monotonic() + 60
        while run("healthcheck", "--address", address).returncode != 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        info = lambda what: subprocess.run([CLIENT, "--control-address", control, "info", what], capture_output=True, text=True,
                                           timeout=60).stdout
        self.assertIn("1 threads", info("server"))
        self.assertIn("kv_blocks_total: 8\n", info("load"))
        self.assertIn("max_context: 20\n", info("model"))
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
        self.assertEqual((server.returncode, err), (0, ""))

    def test_an_address_that_cannot_be_is_an_error(self):
        for flag in ("--listen", "--control-listen", "--metrics-listen"):
            flags = {"--listen": "127.0.0.1:0", "--control-listen": "127.0.0.1:0", "--metrics-listen": "127.0.0.1:0",
                     flag: "nonsense:port"}
            self.refused("nonsense:port", "serve", MODEL, *[word for pair in flags.items() for word in pair])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
