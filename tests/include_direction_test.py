#!/usr/bin/env python3
"""Checks that includes follow the arrows kernels <- cache <- scheduler <- engine <- server -> proto <- clients, and inside engine/ the
floors formats <- text <- weights <- pass <- model <- the step loop.

Linking does not catch a header that reaches the wrong way; this scan does. It also keeps gRPC out of everything but server and clients.
"""
import pathlib
import re
import sys

ALLOWED = {
    "kernels": {"kernels"},
    "cache": {"cache", "kernels"},
    "scheduler": {"scheduler", "cache", "kernels"},
    "engine": {"engine", "scheduler", "cache", "kernels"},
    "server": {"server", "engine", "scheduler", "cache", "kernels", "thermocline"},  # thermocline/: generated from proto/
    "clients": {"clients", "thermocline"},
}
# The wings of engine/ from the ground up: each may include itself and those below. What lies in engine/ itself stands on all of them.
FLOORS = ("formats", "text", "weights", "pass", "model")
ONLY_IN = {"grpcpp/": {"server", "clients"}, "oneapi/": {"kernels"}, "prometheus/": {"server"}, "unicode/": {"engine"}}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def floor_of(path):
    """Of a path below engine/; those outside the wings stand on top."""
    wing = path.split("/")[0]
    return FLOORS.index(wing) if wing in FLOORS else len(FLOORS)


def problems_of_floors(root):
    for path in sorted((root / "engine").rglob("*")):
        if path.suffix not in (".h", ".cc"):
            continue
        floor = floor_of(path.relative_to(root / "engine").as_posix())
        for quote, name in INCLUDE.findall(path.read_text()):
            if quote == '"' and name.startswith("engine/") and floor_of(name.removeprefix("engine/")) > floor:
                yield f"{path.relative_to(root)} includes {name}: engine/ stands on {' <- '.join(FLOORS)} <- itself"


def problems(root):
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            for quote, name in INCLUDE.findall(path.read_text()):
                top = name.split("/")[0]
                if quote == '"' and top in set(ALLOWED) | {"tests", "thermocline"} and top not in allowed:
                    yield f"{path.relative_to(root)} includes {name}: {folder} may include {', '.join(sorted(allowed))}"
                for prefix, where in ONLY_IN.items():
                    if name.startswith(prefix) and folder not in where:
                        yield f"{path.relative_to(root)} includes {name}, which belongs to {', '.join(sorted(where))}"


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(problems(root)) + list(problems_of_floors(root))
    print("\n".join(found) or "all includes follow the arrows")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
