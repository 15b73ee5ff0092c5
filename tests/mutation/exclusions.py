"""What is no mutant: wording, reporting and pure hints of speed. Short on purpose: every line claims that no test need notice."""
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

# Of a call of one of these the arguments are wording; that it happens is not.
MESSAGES = re.compile(r"^(Fail|fail|warn|Warn|OutOfRange)$")

# Functions that only describe, for people.
FUNCTIONS = re.compile(r"(^|::)(LogModel|MiB|DescribeBackend|ShowProgress|DebugString)$")

# Mutants whose line holds one of these: how many threads do the work, what a terminal's standard error shows, casts to void.
TEXT = re.compile(r"num_threads|kMaxThreads|\bhelpers?\b|\bstderr\b|isatty|\(void\)|static_cast<void>")

# Arguments that are not swapped: without effect, or never right for the compiler or the machine.
NOT_SWAPPED = re.compile(r"^(max|min|swap|equivalent|operator\W+|add_option|add_flag|add_subcommand)$")
NOT_SWAPPED_ARGUMENT = re.compile(r"\.c?r?(begin|end)\(\)$")


def wanted_file(path):
    return path.split("/")[0] in FOLDERS and path not in FILES
