#!/bin/sh
# Builds and runs all tests: parsers, loaders, conversion, the engine's step loop and the server's calls under AddressSanitizer, threads
# under ThreadSanitizer, then everything in release.
# Ends with what was skipped and ctest's summary.
set -eu
cd "$(dirname "$0")/.."
deploy/install_packages.sh test

cmake --preset asan
cmake --build --preset asan --target formats_test fuzz_replay_test convert_test engine_test server_test
tests/run_ctest.py ctest --preset asan -j "$(nproc)" -R '^(formats_test|fuzz_replay_test|convert_test|engine_test|server_test)/'

cmake --preset tsan
cmake --build --preset tsan --target concurrency_test
tests/run_ctest.py ctest --preset tsan -j "$(nproc)" -R '^concurrency_test/'

# Warnings are errors, but not above: GCC's sanitizers cause some that have no switch ("ignoring loop annotation").
cmake --preset release -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DTHERMOCLINE_BUILD_TESTS=ON
cmake --build --preset release
tests/run_ctest.py ctest --preset release -j "$(nproc)"
