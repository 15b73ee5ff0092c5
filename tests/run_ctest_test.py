#!/usr/bin/env python3
"""Runs run_ctest.py with a program in ctest's place: what it prints last, its exit status, and what is said of skipped tests."""
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

RUN_CTEST = pathlib.Path(__file__).with_name("run_ctest.py")
CLOSING = """100% tests passed, 0 tests failed out of 4

Total Test time (real) =   0.01 sec

The following tests did not run:
\t  2 - a_test/Some.Thing (Skipped)
"""
SKIPPED = """Running main() from ./googletest/src/gtest_main.cc
[ RUN      ] {name}
../tests/a_test.cc:7: Skipped
{reason}

[  SKIPPED ] {name} (0 ms)
"""


def junit(**skipped):
    cases = "".join(f'<testcase name="{name}"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>'
                    f"{SKIPPED.format(name=name, reason=reason)}</system-out></testcase>" for name, reason in skipped.items())
    return f'<testsuite><testcase name="a_test/Runs"><system-out>[       OK ]</system-out></testcase>{cases}</testsuite>'


class RunCtest(unittest.TestCase):
    def run_with(self, written, status=0, closing=CLOSING):
        """Exit status and output with a program that prints, writes `written` as its JUnit file and ends with `status`."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = pathlib.Path(folder.name) / "ctest"
        program.write_text(f"#!{sys.executable}\nimport sys, pathlib\nprint('1/1 Test #1', *sys.argv[1:3])\n"
                           f"written = {written!r}\nfile = sys.argv[sys.argv.index('--output-junit') + 1]\n"
                           f"written is None or pathlib.Path(file).write_text(written)\n"
                           f"sys.stdout.write({closing!r})\nsys.stdout.flush()\n"
                           f"{status} and sys.stderr.write('Errors while running CTest\\n')\nsys.exit({status})\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        result = subprocess.run([sys.executable, RUN_CTEST, program, "--preset", "release"], capture_output=True, text=True)
        self.assertEqual(result.stderr, "")
        return result.returncode, result.stdout

    def test_the_closing_summary_comes_last_and_reasons_before_it(self):
        status, out = self.run_with(junit(**{"a_test/Some.Thing": "no such data", "a_test/All/Other.Thing/x": "this machine lacks avx9",
                                             "a_test/All/Other.Thing/y": "this machine lacks\n avx9"}))
        self.assertEqual(status, 0)
        self.assertEqual(out, "1/1 Test #1 --preset release\n"
                              "Skipped: 3 of 4 tests.\n"
                              "    2  this machine lacks avx9\n"
                              "         a_test/All/Other.Thing\n"
                              "    1  no such data\n"
                              "         a_test/Some.Thing\n\n" + CLOSING)

    def test_without_skipped_tests_it_says_so(self):
        status, out = self.run_with(junit())
        self.assertEqual((status, out), (0, "1/1 Test #1 --preset release\nSkipped: none of 1 tests.\n\n" + CLOSING))

    def test_a_test_that_gives_no_reason_is_counted(self):
        case = '<testsuite><testcase name="command_line"><skipped message=""/><system-out>quiet</system-out></testcase></testsuite>'
        self.assertIn("    1  no reason given\n         command_line\n", self.run_with(case)[1])

    def test_failures_keep_ctests_status_and_its_last_words(self):
        status, out = self.run_with(junit(), status=8, closing="50% tests passed, 1 tests failed out of 2\n")
        self.assertEqual(status, 8)
        self.assertTrue(out.endswith("50% tests passed, 1 tests failed out of 2\nErrors while running CTest\n"), out)

    def test_ctest_without_results_is_passed_through(self):
        status, out = self.run_with(None, status=1, closing="No tests were found!!!\n")
        self.assertEqual((status, out), (1, "1/1 Test #1 --preset release\nNo tests were found!!!\nErrors while running CTest\n"))


if __name__ == "__main__":
    unittest.main()
