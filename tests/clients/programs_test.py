#!/usr/bin/env python3
"""Runs the client programs against a server of a model whose every answer is known (tests/data/tools/make_alphabet.py).

    programs_test.py THERMOCLINE THERMOCLINE_CLIENT THERMOCLINE_LOAD SOURCE_DIR
"""
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CLIENT, LOAD, SOURCE = sys.argv[1:5]
MODEL = f"{SOURCE}/tests/data/alphabet.gguf"
REST = "defghijklmnopqrstuvwxyz"  # what follows "abc"


class WithServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.address, cls.control = (f"unix:{cls.folder.name}/{name}" for name in ("data", "control"))
        cls.log = open(f"{cls.folder.name}/log", "w+")
        cls.server = cls.serve(cls.address, cls.control)

    @classmethod
    def tearDownClass(cls):
        cls.server.send_signal(signal.SIGTERM)
        status = cls.server.wait(timeout=60)
        cls.log.close()
        cls.folder.cleanup()
        assert status == 0, f"the server ended with {status}"

    @classmethod
    def serve(cls, address, control):
        server = subprocess.Popen([PROGRAM, "serve", MODEL, "--listen", address, "--control-listen", control,
                                   "--metrics-listen", ""], stdout=subprocess.DEVNULL, stderr=cls.log)
        cls.addClassCleanup(server.kill)  # where it does not start or end
        deadline = time.monotonic() + 60
        while subprocess.run([PROGRAM, "healthcheck", "--address", address], capture_output=True).returncode != 0:
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        return server


class Client(WithServer):
    def client(self, *args, stdin=""):
        return subprocess.run([CLIENT, "--address", self.address, "--control-address", self.control, *args], input=stdin,
                              capture_output=True, text=True, timeout=120)

    def out(self, *args):
        result = self.client(*args)
        self.assertEqual((result.returncode, result.stderr), (0, ""), args)
        return result.stdout

    def test_generate_prints_the_answer_and_takes_its_parameters(self):
        greedy = ("generate", "abc", "--temperature", "0")
        self.assertEqual(self.out(*greedy), REST + "\n")
        self.assertEqual(self.out(*greedy, "--max-tokens", "3"), "def\n")
        self.assertEqual(self.out(*greedy, "--stop", "p", "--stop", "h"), "defg\n")
        seeded = [self.out("generate", "abc", "--temperature", "1.5", "--max-tokens", "30", "--seed", seed) for seed in "1123"]
        self.assertEqual(seeded[0], seeded[1])
        self.assertGreater(len(set(seeded)), 1)

    def test_chat_tokenize_and_info(self):
        self.assertEqual(self.out("chat", "abc", "--temperature", "0", "--max-tokens", "4"), "defg\n")
        self.assertEqual(self.out("tokenize", "ab c"), "[7,8,43,9]\n")
        self.assertIn('state: "serving"', self.out("info"))
        self.assertIn('state: "serving"', self.out("info", "server"))
        self.assertIn("num_hidden_layers: 2", self.out("info", "model"))
        self.assertRegex(self.out("info", "load"), r"generated_tokens: [1-9]")
        self.assertEqual(self.out("info", "experts").count("layers {"), 2)

    def prompt_tokens(self, *args):
        """How many tokens the model's template makes of a chat."""
        count = lambda: int((re.findall(r"prompt_tokens: (\d+)", self.out("info", "load")) or "0")[0])  # 0 is not printed
        before = count()
        self.out("chat", "a", "--max-tokens", "1", *args)
        return count() - before

    def test_the_system_message_template_arguments_and_tools_are_sent(self):
        plain = len("<bos>user:a") - len("bos>")
        self.assertEqual(self.prompt_tokens(), plain)
        self.assertEqual(self.prompt_tokens("--system", "bcd"), plain + len("system:bcd\n"))
        self.assertEqual(self.prompt_tokens("--template-arguments", '{"extra": "xy"}'), plain + len("xy"))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as tools:
            tools.write('[{"name": "f", "parameters": {"type": "object"}}]')
            tools.flush()
            self.assertEqual(self.prompt_tokens("--tools", tools.name), plain + len("1"))
        refused = self.client("chat", "a", "--template-arguments", "[1]")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("template_arguments", refused.stderr)

    def test_a_call_that_fails_says_so_and_exits_with_1(self):
        for args, part in [(("generate", "abc", "--temperature", "101"), "temperature"),
                           (("chat", "abc", "--temperature", "101"), "temperature"),
                           (("--timeout", "0.05", "generate", "0", "--max-tokens", "16000", "--temperature", "0"), "gRPC status 4"),
                           (("chat", "a", "--tools", "/nowhere.json"), "/nowhere.json")]:
            result = self.client(*args)
            self.assertEqual(result.returncode, 1, args)
            self.assertIn(part, result.stderr)
        for name in (("generate", "a"), ("chat", "a"), ("tokenize", "a"), ("info",), ("drain",)):
            nobody = subprocess.run([CLIENT, "--address", "127.0.0.1:1", "--control-address", "127.0.0.1:1", *name],
                                    capture_output=True, text=True, timeout=60)
            self.assertEqual(nobody.returncode, 1, name)
            self.assertIn("thermocline-client: ", nobody.stderr)
            self.assertIn("gRPC status 14", nobody.stderr)

    def test_tools_are_a_json_list(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "tools.json")
            tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
            for text, status in ((json.dumps([tool]), 0), (json.dumps([tool, {"function": {}}]), 1), ("{}", 1), ("[", 1)):
                path.write_text(text)
                result = self.client("chat", "abc", "--temperature", "0", "--max-tokens", "2", "--tools", str(path))
                self.assertEqual(result.returncode, status, text)
                self.assertEqual(str(path) in result.stderr, status != 0)

    def test_drain_ends_the_server(self):
        address, control = (f"unix:{self.folder.name}/{name}" for name in ("data2", "control2"))
        server = self.serve(address, control)
        drained = subprocess.run([CLIENT, "--control-address", control, "drain"], capture_output=True, timeout=60)
        self.assertEqual(drained.returncode, 0)
        self.assertEqual(server.wait(timeout=60), 0)


class Load(WithServer):
    def load(self, *args, address=None):
        return subprocess.run([LOAD, "--address", address or self.address, *args], capture_output=True, text=True, timeout=300)

    def report(self, *args):
        result = self.load("--json", *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_counts_what_it_sent_and_got(self):
        report = self.report("--requests", "7", "--streams", "3", "--max-tokens", "5")
        self.assertEqual((report["requests"], report["output_tokens"], report["errors"]), (7, 35, {}))
        self.assertAlmostEqual(report["output_tokens_per_second"], 35 / report["seconds"], places=3)
        times = [report[name]["max"] for name in ("inter_token_seconds", "time_to_first_token_seconds", "request_seconds")]
        self.assertGreater(times[0], 0.0)
        self.assertLess(times[1], times[2])
        self.assertLess(times[2], report["seconds"])

    def test_prompts_are_of_so_many_words_and_follow_the_seed(self):
        tokens = lambda *args: self.report("--requests", "3", "--max-tokens", "1", *args)["prompt_tokens"]
        # "Story", a number, ":" and words of 3 to 7 letters with a space before each; the model has no capitals.
        self.assertGreater(tokens("--prompt-words", "20"), 3 * 20 * 4)
        self.assertLess(tokens("--prompt-words", "20"), 3 * (20 * 8 + 12))
        self.assertLess(tokens("--prompt-words", "2"), 3 * (2 * 8 + 12))
        seeded = [tokens("--seed", seed) for seed in "1123"]
        self.assertEqual(seeded[0], seeded[1])
        self.assertGreater(len(set(seeded)), 1)

    def test_a_request_that_fails_is_counted_and_exits_with_1(self):
        nobody = self.load("--requests", "3", "--streams", "2", address="127.0.0.1:1")
        self.assertEqual(nobody.returncode, 1)
        self.assertRegex(nobody.stdout, r"^3 requests in \S+ s, 3 errors; 0 prompt and 0 output tokens")
        self.assertRegex(nobody.stdout, r"(?m)^3 x .*\(gRPC status 14\)$")
        # A prompt that the context does not hold, among others that it does.
        too_long = self.load("--requests", "2", "--prompt-words", "9000", "--json")
        self.assertEqual(too_long.returncode, 1)
        self.assertEqual(sum(json.loads(too_long.stdout)["errors"].values()), 2)

    def test_what_it_cancels_itself_is_no_error(self):
        report = self.report("--requests", "20", "--streams", "4", "--max-tokens", "50", "--cancel-share", "1")
        self.assertEqual((report["requests"], report["errors"]), (20, {}))
        self.assertLess(report["output_tokens"], 20 * 50)
        self.assertEqual(report["request_seconds"]["max"], 0.0)  # of those that came to their end
        self.assertEqual(self.report("--requests", "4", "--max-tokens", "50", "--cancel-share", "0")["output_tokens"], 200)

    def test_requests_arrive_at_the_rate_for_so_many_seconds(self):
        report = self.report("--rate", "100", "--seconds", "1", "--max-tokens", "1")
        self.assertGreater(report["requests"], 60)  # 100 +- 10, four times over
        self.assertLess(report["requests"], 140)
        self.assertGreater(report["seconds"], 0.8)
        self.assertEqual(self.report("--rate", "1000", "--requests", "5", "--max-tokens", "1")["requests"], 5)

    def test_a_closed_loop_ends_after_its_seconds(self):
        report = self.report("--streams", "2", "--seconds", "2", "--max-tokens", "1")
        self.assertGreater(report["requests"], 2)  # more than one a stream
        self.assertGreaterEqual(report["seconds"], 2)

    def test_the_table_is_the_default(self):
        lines = self.load("--requests", "2", "--max-tokens", "3").stdout.splitlines()
        self.assertRegex(lines[0], r"^2 requests in \S+ s, 0 errors; \d+ prompt and 6 output tokens, \S+ output tokens/s$")
        self.assertEqual(re.split(r"\s\s+", lines[1]), ["milliseconds", "p50", "p90", "p99", "max"])
        self.assertEqual([line[:22].strip() for line in lines[2:]], ["time to first token", "between tokens", "whole request"])

    def test_flags_out_of_range_are_refused(self):
        for flag, value in (("--streams", "0"), ("--cancel-share", "1.5"), ("--rate", "-1"), ("--requests", "-1"),
                            ("--seconds", "0"), ("--max-tokens", "0"), ("--prompt-words", "0")):
            result = self.load(flag, value)
            self.assertNotEqual(result.returncode, 0, flag)
            self.assertIn(flag, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
