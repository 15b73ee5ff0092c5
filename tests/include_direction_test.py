#!/usr/bin/env python3
"""Checks that includes follow the arrows kernels <- cache <- scheduler <- engine <- server -> proto <- clients.

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
ONLY_IN = {"grpcpp/": {"server", "clients"}, "oneapi/": {"kernels"}, "prometheus/": {"server"}, "unicode/": {"engine"}}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


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
    found = list(problems(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "all includes follow the arrows")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
