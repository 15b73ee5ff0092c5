"""What is no mutant: wording, reporting and pure hints of speed. Short on purpose; every line is a claim that no test need notice."""
import re

FOLDERS = ("scheduler", "cache", "engine", "server")

# Files that hold wording only.
FILES = {"server/log.cc", "server/log.h", "server/version.h"}

# A call of one of these, arguments included, is left alone.
CALLS = re.compile(
    r"""^(
      \w+Error                      # absl::InvalidArgumentError(...): the wording of an error
    | Log(Info|Warning|Error)       # lines of the log
    | reserve | shrink_to_fit | prefetch | __builtin_prefetch
    )$""", re.VERBOSE)

# Functions that only describe, for people, and the functions that only say what a flag is for.
FUNCTIONS = re.compile(r"(^|::)(LogModel|MiB|DescribeBackend|ShowProgress|DebugString)$")

# Mutants whose text holds one of these: how many threads do the work, what goes to a terminal's standard error, casts to void.
TEXT = re.compile(r"num_threads|kMaxThreads|\bhelpers?\b|\bstderr\b|isatty|STDERR_FILENO|\(void\)|static_cast<void>")

# Functions whose arguments may be swapped without any effect.
SYMMETRIC = re.compile(r"^(max|min|swap|gcd|lcm|operator\W+)$")


def wanted_file(path):
    return path.split("/")[0] in FOLDERS and path not in FILES
