"""Which test programs should see a mutant, by where it is: the first prefix that fits counts. "PROGRAM" or "PROGRAM PATTERN"."""
import fnmatch

TESTS = (
    ("kernels/", ["kernels_test", "concurrency_test", "non_finite_test", "golden_test", "placement_test", "convert_test"]),
    ("cache/", ["concurrency_test", "engine_test", "non_finite_test", "placement_test", "server_test", "commands", "command_line"]),
    ("scheduler/", ["concurrency_test", "engine_test", "placement_test", "server_test"]),
    ("engine/text/template/", ["formats_test", "server_test", "commands", "command_line"]),
    ("engine/text/chat/", ["formats_test", "server_test", "commands", "command_line"]),
    ("engine/text/tokenizer/", ["formats_test", "fuzz_replay_test", "convert_test", "command_line"]),
    ("engine/formats/", ["formats_test", "fuzz_replay_test", "convert_test", "golden_test", "command_line"]),
    ("engine/model/convert/", ["convert_test", "formats_test", "command_line"]),
    ("engine/model/layers/", ["formats_test", "engine_test", "non_finite_test", "golden_test", "placement_test", "convert_test"]),
    ("engine/model/", ["formats_test", "fuzz_replay_test", "engine_test", "golden_test", "convert_test", "placement_test"]),
    ("engine/", ["formats_test", "concurrency_test", "engine_test", "non_finite_test", "golden_test", "placement_test",
                 "convert_test", "server_test", "serve_test", "commands", "command_line", "client_programs"]),
    ("server/", ["server_test", "serve_test", "commands", "command_line", "client_programs"]),
    ("clients/", ["clients_test", "client_programs", "command_line"]),
)
# What the Python tests start.
PYTHON_NEEDS = ["thermocline", "thermocline-client", "thermocline-load"]


def programs_for(path):
    """[(program, pattern of its cases)] for a source file."""
    for prefix, names in TESTS:
        if path.startswith(prefix):
            return [(name.split(" ") + ["*"])[:2] for name in names]
    return []


def matches(pattern, case):
    """As --gtest_filter: patterns between colons; what follows a minus is left out."""
    wanted, _, unwanted = pattern.partition("-")
    fits = lambda patterns: any(fnmatch.fnmatchcase(case, p) for p in patterns.split(":") if p)
    return fits(wanted or "*") and not fits(unwanted)
