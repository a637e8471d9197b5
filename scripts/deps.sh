#!/bin/sh
# scripts/deps.sh [group ...] - installs the Debian packages that a group needs and that are missing.
#
# Without a group: what building and testing takes. `ci` adds the second compiler, valgrind and
# google-benchmark; `bench` that, libunwind and the profilers that ours is compared with; `tools` the
# programs that tests talk to for real: Prometheus, a browser, servers to preload, readers of profiles
# (of these, those that tests/readers names come from npm). Says what it installs; does nothing, and
# needs no right, when all is there. Where there is no apt it prints the list and fails, so that the
# reader can install the same by the names of his system.
set -eu

readers=
packages="gcc g++ libc6-dev make pkgconf libcmocka-dev libmicrohttpd-dev uthash-dev zlib1g-dev"
for group in "$@"; do
    case $group in
    ci) packages="$packages groff-base clang valgrind libclang-rt-14-dev libbenchmark-dev" ;;
    tools) packages="$packages curl prometheus chromium redis-server redis-tools nginx-light wrk sqlite3 python3
                     memcached binutils libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 golang-go
                     graphviz libdevel-nytprof-perl"
        # A node that brings its own npm conflicts with Debian's.
        command -v npm >/dev/null 2>&1 || packages="$packages nodejs npm"
        readers=yes ;;
    bench) packages="$packages libbenchmark-dev libunwind-dev curl valgrind heaptrack libjemalloc2
                     libgoogle-perftools4 golang-go libdevel-nytprof-perl" ;;
    *) echo "deps.sh: no group '$group'" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "No apt here. memkit's core needs a C compiler and make; the example and the tests need, by Debian's names:" >&2
    for package in $packages; do echo "    $package"; done
    # Whoever has them under other names should not be stopped from building.
    if echo '#include <microhttpd.h>
#include <uthash.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>' | ${CC:-cc} -E - >/dev/null 2>&1; then exit 0; fi
    exit 1
fi

missing=
for package in $packages; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
    installed*) ;;
    *) missing="$missing $package" ;;
    esac
done
if [ -n "$missing" ]; then
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || { echo "deps.sh: not root, and no sudo; install:$missing" >&2; exit 1; }
        sudo=sudo
    fi
    echo "Installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# What reads profiles and comes from npm: the versions of tests/readers/package-lock.json, no script of theirs run.
if [ -n "$readers" ]; then
    cd "$(dirname "$0")/.."
    if ! cmp -s tests/readers/package-lock.json build/readers/package-lock.json || [ ! -d build/readers/node_modules ]; then
        echo "Installing: npm's packages of tests/readers into build/readers"
        rm -rf build/readers
        mkdir -p build/readers
        cp tests/readers/package.json build/readers/
        cp tests/readers/package-lock.json build/readers/
        (cd build/readers && npm ci --ignore-scripts --no-audit --no-fund --silent) || {
            rm -rf build/readers
            echo "deps.sh: npm could not install tests/readers" >&2
            exit 1
        }
    fi
fi
