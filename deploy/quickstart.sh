#!/bin/sh
# From a fresh checkout to a running server: installs the packages, builds, serves. Arguments go to `thermocline serve`.
set -eu
cd "$(dirname "$0")/.."
deploy/install_packages.sh
cmake --preset release -DTHERMOCLINE_BUILD_TESTS=OFF >&2
cmake --build --preset release >&2
exec build/server/thermocline serve "$@"
