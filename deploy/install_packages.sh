#!/bin/sh
# Installs what building needs, and with "test" what testing needs too, from Debian 12's own packages. Does nothing when all of it
# is there.
set -eu

PACKAGES="
  g++ cmake ninja-build ccache pkg-config git python3
  libabsl-dev libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
  nlohmann-json3-dev libdnnl-dev libhwloc-dev liburing-dev libxxhash-dev libpcre2-dev libicu-dev
  libspdlog-dev libcli11-dev libyaml-cpp-dev prometheus-cpp-dev zlib1g-dev
"
[ "${1:-}" != test ] || PACKAGES="$PACKAGES libgtest-dev clang-format clang-tidy"

missing=""
for package in $PACKAGES; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
echo "installing:$missing" >&2
run=""
[ "$(id -u)" -eq 0 ] || run="sudo"
$run apt-get update >&2
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $run apt-get install -y --no-install-recommends $missing >&2
