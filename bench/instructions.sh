#!/bin/sh
# bench/instructions.sh - instructions of each hot path, by callgrind; B is the build directory.
#
# Each figure is the difference of two runs, n apart, so that start and end cancel out. Targets are
# those the project set itself for its finished form.
set -eu
: "${B:?the build directory}"
command -v valgrind >/dev/null || { echo "instructions.sh: needs valgrind (make deps-ci)" >&2; exit 3; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

run() { # run WHAT N PRELOAD: instructions in all
    LD_PRELOAD=$3 valgrind --tool=callgrind --callgrind-out-file="$out/cg" "$B/bench/instructions" "$1" "$2" \
        2>&1 | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

per_op() { # per_op WHAT N PRELOAD
    few=$(run "$1" "$2" "$3") many=$(run "$1" $(($2 * 2)) "$3")
    awk "BEGIN { printf \"%.1f\", ($many - $few) / $2 }"
}

unwind() { # unwind KIND N: instructions in all
    valgrind --tool=callgrind --callgrind-out-file="$out/cg" "$B/bench/unwind" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

row() { printf '%-44s %14s   %s\n' "$1" "$2" "$3"; }

row "what" "instructions" "target"
row "pool: get + put, 512 B" "$(per_op pool 100000 '')" "35"
row "arena: one of 100 allocations, and a reset" "$(per_op arena 100000 '')" "19"
row "LRU: hit, get_into, 100 B, unlocked" "$(per_op lru-hit 100000 '')" ""
row "LRU: hit, get_into, 100 B, one locked shard" "$(per_op lru-hit-locked 100000 '')" ""
row "LRU: hit, get + release, unlocked" "$(per_op lru-pinned 100000 '')" ""
row "LRU: insert that evicts, unlocked" "$(per_op lru-evict 100000 '')" ""
plain=$(per_op malloc 100000 '')
empty=$(per_op malloc 100000 "$PWD/$B/bench/empty_preload.so")
hooked=$(per_op malloc 100000 "$PWD/$B/libmemkit-prof.so.0")
row "malloc + free, 512 B, glibc alone" "$plain" ""
row "  the same under an empty preload" "$empty" ""
row "  the same, counted by libmemkit-prof" "$hooked" "empty preload + $(awk "BEGIN { printf \"%.1f\", $hooked - $empty }")"
for rate in 512k 1; do
    sampled=$(per_op malloc-$rate 100000 "$PWD/$B/libmemkit-prof.so.0")
    row "  the same, sampled, rate $rate" "$sampled" "empty preload + $(awk "BEGIN { printf \"%.1f\", $sampled - $empty }")"
done
for kind in same changing sharing partly new; do
    few=$(unwind $kind 2000) many=$(unwind $kind 4000)
    row "unwinding a stack of depth 24, $kind" "$(awk "BEGIN { printf \"%.1f\", ($many - $few) / 2000 }")" ""
done
