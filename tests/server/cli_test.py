#!/usr/bin/env python3
"""Runs the thermocline program as a user would: every subcommand, the server's life cycle, and bad input.

    cli_test.py THERMOCLINE THERMOCLINE_CLIENT SOURCE_DIR
"""
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CLIENT, SOURCE = sys.argv[1:4]
DEMO = f"{SOURCE}/share/thermocline/demo/smollm2-135m-moe-00001-of-00002.gguf"
GOLDEN = f"{SOURCE}/tests/data/golden"


def run(*args, stdin="", env=None):
    return subprocess.run([PROGRAM, *args], input=stdin, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **(env or {})})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Commands(unittest.TestCase):
    def test_score_prints_logprobs_and_logits(self):
        result = run("score", f"{GOLDEN}/qwen3_moe", "--tokens", "1,2,3", "--json", "--logits")
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual(len(out["logprobs"]), 2)
        self.assertEqual([len(row) for row in out["logits"]], [64] * 3)

    def test_generate_of_a_folder_without_tokenizer_has_no_text(self):
        result = run("generate", f"{GOLDEN}/qwen3_moe", "--tokens", "1,2,3", "--max-tokens", "4", "--temperature", "0",
                     "--ignore-eos", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual(len(out["tokens"]), 4)
        self.assertIsNone(out["text"])

    def test_generate_with_the_default_model(self):
        result = run("generate", "--prompt", "The capital of France is", "--max-tokens", "3", "--json")
        self.assertIn("Paris", json.loads(result.stdout)["text"], result.stderr)

    def test_chat_answers_each_line(self):
        # Rounded activations may tip what so small a model says.
        result = run("chat", "--max-tokens", "20", "--temperature", "0", "--exact",
                     stdin="What is the capital of France?\nThank you.\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("Paris", result.stdout.splitlines()[0])

    def test_kv_cache_of_8_bits(self):
        text = f"{SOURCE}/share/thermocline/demo/LICENSE"
        plain, rounded = (json.loads(run("perplexity", "--file", text, "--chunk", "128", "--max-chunks", "2", "--json",
                                         "--activations", "f32", "--kv-dtype", kind).stdout)["perplexity"]
                          for kind in ("f16", "q8_0"))
        self.assertNotEqual(plain, rounded)
        self.assertLess(abs(rounded / plain - 1.0), 0.03)
        result = run("generate", f"{GOLDEN}/mixtral-swa", "--tokens", "1,2", "--max-tokens", "1", "--kv-dtype", "q8_0")
        self.assertEqual(result.returncode, 1)
        self.assertIn("whole blocks of 32", result.stderr)

    def test_bench_measures_the_default_model(self):
        result = run("bench", "--json", "--prefill", "40", "--streams", "1,3", "--prompt-tokens", "4", "--new-tokens", "3",
                     "--repetitions", "1", "--buffer-mib", "8", "--kv-tokens", "512")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = json.loads(result.stdout)["rows"]
        self.assertEqual([(row["kind"], row["streams"]) for row in rows], [("prefill", 1), ("decode", 1), ("decode", 3)])
        for row in rows:
            self.assertGreater(row["tokens_per_second"]["median"], 0.0)
            self.assertGreater(row["read_gb_per_second"], 0.0)
            self.assertGreater(row["ops_per_step"], 1e8)
            # The stages account for the step.
            self.assertGreater(sum(row["stage_ms"].values()), 0.5 * row["step_ms"])
        # 24 experts a layer, 3 streams: more than one stream's 6, at most 18.
        self.assertGreater(rows[2]["experts_per_layer"], rows[1]["experts_per_layer"])
        shaped = json.loads(run("bench", "--json", "--shape", "tiny:q4_k", "--prefill", "20", "--streams", "2", "--new-tokens",
                                "2", "--repetitions", "1", "--buffer-mib", "8", "--kv-tokens", "512").stdout)
        self.assertEqual(shaped["model"], "tiny:q4_k")
        self.assertEqual(len(shaped["rows"]), 2)
        for spec, message in (("huge", "olmoe7b, qwen30b"), ("tiny:q9", "q4_0")):
            refused = run("bench", "--shape", spec)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(message, refused.stderr)
        self.assertIn("of bound", run("bench", "--prefill", "8", "--streams", "1", "--new-tokens", "2", "--repetitions", "1",
                                      "--buffer-mib", "8", "--kv-tokens", "512").stdout)

    def test_bench_and_calibration_refuse_what_makes_no_sense(self):
        result = run("bench", "--streams", "0", "--buffer-mib", "8")
        self.assertEqual(result.returncode, 1)
        self.assertIn("streams = 0", result.stderr)
        with tempfile.TemporaryDirectory() as folder:
            table = pathlib.Path(folder) / "table.json"
            for text, message in (("[]", "no JSON object"), ('{"wide_from": {"Q9_Z": 3}}', '"Q9_Z" is no weight format'),
                                  ('{"wide_from": {"Q4_K": 0}}', "Q4_K = 0")):
                table.write_text(text)
                result = run("generate", "--prompt", "a", "--max-tokens", "1", "--calibration", str(table))
                self.assertEqual(result.returncode, 1, text)
                self.assertIn(message, result.stderr)
            table.write_text('{"wide_from": {"Q4_0": 2, "Q4_1": 900}}')
            plain = run("generate", "--prompt", "The sea", "--max-tokens", "6", "--json").stdout
            tuned = run("generate", "--prompt", "The sea", "--max-tokens", "6", "--json", "--calibration", str(table)).stdout
            self.assertEqual(json.loads(tuned)["tokens"], json.loads(plain)["tokens"])

    def test_inspect(self):
        out = json.loads(run("inspect", "--json").stdout)
        self.assertTrue(out["supported"])
        self.assertEqual(len(out["files"]), 2)
        self.assertIn("granitemoe", run("inspect").stdout)

    def test_perplexity(self):
        result = run("perplexity", "--file", f"{SOURCE}/share/thermocline/demo/LICENSE", "--chunk", "128", "--max-chunks", "2",
                     "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(json.loads(result.stdout)["perplexity"], 100.0)

    def test_perplexity_is_of_the_second_half_of_each_chunk(self):
        text, chunk = f"{SOURCE}/share/thermocline/demo/LICENSE", 16
        exact = ("--activations", "f32", "--kv-dtype", "f32")
        out = json.loads(run("perplexity", "--file", text, "--chunk", str(chunk), "--max-chunks", "2", "--json", *exact).stdout)
        # Tokens 9 to 15 of 16: the last of them has no successor in its chunk.
        self.assertEqual((out["tokens_scored"], out["chunks"], out["chunk"]), (14, 2, chunk))
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as line:
            line.write(json.dumps({"text": pathlib.Path(text).read_text()}) + "\n")
            line.flush()
            tokens = json.loads(run("tokenize", DEMO, "--file", line.name).stdout)["ids"]
        total = 0.0
        for begin in (0, chunk):
            part = ",".join(str(t) for t in tokens[begin:begin + chunk])
            # logprobs[i] is of token i + 1 behind tokens 0 to i.
            logprobs = json.loads(run("score", DEMO, "--tokens", part, "--json", *exact).stdout)["logprobs"]
            total += sum(logprobs[chunk // 2:])
        self.assertAlmostEqual(out["perplexity"] / math.exp(-total / 14), 1.0, places=4)
        for args, message in ((("--chunk", "3"), "at least 4 tokens"), (("--chunk", "100000"), "shorter than one chunk")):
            refused = run("perplexity", "--file", text, *args)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(message, refused.stderr)

    def test_tokenize_and_render(self):
        reference = f"{GOLDEN}/tokenizer/smollm2.jsonl"
        lines = run("tokenize", DEMO, "--file", reference).stdout.split("\n")
        self.assertEqual(json.loads(lines[9])["ids"], [19556, 905])
        template = f"{GOLDEN}/templates/SmolLM2-135M-Instruct"
        cases = [json.loads(line) for line in pathlib.Path(template + ".jsonl").read_text().splitlines()]
        for source in (template + ".jinja", DEMO):
            out = [json.loads(line) for line in run("render", source, "--file", template + ".jsonl").stdout.splitlines()]
            self.assertEqual([o.get("text") for o in out if "text" in o][:2], [c["text"] for c in cases[:2]])

    def test_bad_input_is_named_on_stderr_and_nothing_goes_to_stdout(self):
        for args, part in [
                (("score", "/nowhere.gguf", "--tokens", "1"), "/nowhere.gguf"),
                (("score", f"{GOLDEN}/qwen3_moe", "--tokens", "1,x"), '"x"'),
                (("score", f"{GOLDEN}/qwen3_moe", "--tokens", "999"), "vocabulary has 64"),
                (("score", f"{GOLDEN}/qwen3_moe", "--tokens", ""), "empty"),
                (("generate", "--prompt", "a", "--backend", "gpu"), "reference, cpu"),
                (("generate", "--prompt", "a", "--kv-dtype", "q8"), "f32, f16, bf16 and q8_0"),
                (("generate", "--prompt", "a", "--activations", "int4"), "f32 and int8"),
                (("generate", "--prompt", "a", "--temperature", "-1"), "temperature = -1"),
                (("generate",), "--prompt and --tokens"),
                (("generate", "--prompt", "a", "--host-experts", "0"), "1 to num_experts = 24"),
                (("generate", "--prompt", "a", "--cpu-isa", "sse9"), "sse9"),
                (("generate", "--prompt", "a", "--context", "99999"), "1 to 8192"),
                (("render", "/nowhere.jinja", "--file", "/nowhere"), "/nowhere.jinja"),
                (("perplexity", "--file", "/nowhere"), "/nowhere"),
                (("serve", "--log-level", "loud"), "log-level"),
                (("healthcheck", "--address", "127.0.0.1:1", "--timeout", "1"), "127.0.0.1:1")]:
            result = run(*args)
            self.assertNotEqual(result.returncode, 0, args)
            self.assertIn(part, result.stderr, args)
            self.assertEqual(result.stdout, "", args)

    def test_environment_and_config_file_stand_for_flags(self):
        score = ("score", f"{GOLDEN}/qwen3_moe", "--tokens", "1,2")
        self.assertIn("gpu", run(*score, env={"THERMOCLINE_BACKEND": "gpu"}).stderr)
        self.assertEqual(run(*score, "--backend", "cpu", env={"THERMOCLINE_BACKEND": "gpu"}).returncode, 0)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "c.yaml")
            path.write_text("backend: gpu\n")
            self.assertIn("gpu", run(*score, "--config", str(path)).stderr)
            self.assertEqual(run(*score, "--config", str(path), env={"THERMOCLINE_BACKEND": "cpu"}).returncode, 0)
            path.write_text("bakend: cpu\n")
            self.assertIn("bakend", run(*score, "--config", str(path)).stderr)
            path.write_text(": [")
            self.assertNotEqual(run(*score, "--config", str(path)).returncode, 0)


class Serving(unittest.TestCase):
    def start(self, *args):
        self.port, self.control, self.metrics = free_port(), free_port(), free_port()
        process = subprocess.Popen(
            [PROGRAM, "serve", *args, "--listen", f"127.0.0.1:{self.port}", "--control-listen", f"127.0.0.1:{self.control}",
             "--metrics-listen", f"127.0.0.1:{self.metrics}", "--kv-tokens", "4096"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 60
        while run("healthcheck", "--address", f"127.0.0.1:{self.port}").returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                self.fail(f"the server did not start: {process.communicate()}")
            time.sleep(0.1)
        return process

    def client(self, *args):
        return subprocess.run([CLIENT, "--address", f"127.0.0.1:{self.port}", "--control-address",
                               f"127.0.0.1:{self.control}", *args], capture_output=True, text=True, timeout=120)

    def test_serves_reports_and_stops_at_sigterm(self):
        process = self.start()
        self.assertIn("Paris", self.client("chat", "What is the capital of France?", "--temperature", "0").stdout)
        self.assertIn("granitemoe", self.client("info", "model").stdout)
        import urllib.request
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics").read().decode()
        self.assertIn("thermocline_requests_finished_total", text)
        self.assertNotIn("capital", text)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(out, "")
        self.assertNotIn("capital of France", err)  # prompts are not logged

    def test_finishes_what_runs_when_drained(self):
        process = self.start()
        client = subprocess.Popen([CLIENT, "--address", f"127.0.0.1:{self.port}", "generate", "Once upon a time",
                                   "--max-tokens", "100", "--temperature", "0"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        client.stdout.read(1)  # it runs
        self.assertEqual(self.client("drain").returncode, 0)
        out, err = client.communicate(timeout=60)
        self.assertEqual(client.returncode, 0, err)
        self.assertGreater(len(out), 50)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)

    def test_a_model_that_does_not_load_ends_the_server_with_an_error(self):
        result = run("serve", "/nowhere.gguf", "--listen", f"127.0.0.1:{free_port()}", "--control-listen", "",
                     "--metrics-listen", "")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nowhere.gguf", result.stderr)

    def test_a_port_in_use_is_an_error(self):
        self.start()
        result = run("serve", "--listen", f"127.0.0.1:{self.port}")
        self.assertEqual(result.returncode, 1)
        self.assertIn(str(self.port), result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
