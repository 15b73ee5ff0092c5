#!/bin/sh
# Builds and runs all tests: parsers and loaders under AddressSanitizer, threads under ThreadSanitizer, then everything in release.
set -eu
cd "$(dirname "$0")/.."
deploy/install_packages.sh test

cmake --preset asan
cmake --build --preset asan --target formats_test fuzz_replay_test
ctest --preset asan -R '^(formats_test|fuzz_replay_test)/'

cmake --preset tsan
cmake --build --preset tsan --target concurrency_test
ctest --preset tsan -R '^concurrency_test/'

cmake --preset release -DTHERMOCLINE_BUILD_TESTS=ON
cmake --build --preset release
ctest --preset release
