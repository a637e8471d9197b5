#!/bin/sh
# bench/prof_service.sh - what the heap profiler costs the example service (the one that allocates
# most, *before*): processor time a request and requests a second, at 10,000 a second and as fast as
# it goes, without sampling, at 512 KiB and at every allocation.
#
# Modes take turns within a round. Each run asks the profile itself for its rate: a run that
# measures a profiler which does not profile would look good.
# B is the build directory; DURATION seconds a run, ROUNDS, PORT, RATE.
set -eu
: "${B:?the build directory}"
duration=${DURATION:-10} rounds=${ROUNDS:-3} port=${PORT:-18321} rate=${RATE:-10000}
command -v curl >/dev/null || { echo "prof_service.sh: needs curl (make deps-tools)" >&2; exit 3; }
tick=$(getconf CLK_TCK)
out=$(mktemp -d)
service=
trap '[ -z "$service" ] || kill "$service" 2>/dev/null || :; rm -rf "$out"' EXIT

fail() { echo "prof_service.sh: $*" >&2; exit 1; }

cpu() { # cpu PID: ticks of processor time used so far
    sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

json() { # json FILE NAME
    sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1"
}

# What the profile says of its rate.
stated() {
    curl -sS "http://127.0.0.1:$port/debug/pprof/heap?debug=1" >"$out/profile" || : >"$out/profile"
    if grep -q 'every allocation is a sample' "$out/profile"; then
        echo 1
    else
        sed -n 's/.*one sample in \([0-9]*\) bytes.*/\1/p' "$out/profile" | head -n 1
    fi
}

run() { # run SAMPLE_RATE LOAD_RATE: appends "ns-a-request requests-a-second" to a file
    LISTEN_ADDR=127.0.0.1:$port SAMPLE_RATE=$1 "$B/service-before" 2>"$out/log" &
    service=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        curl -s -o /dev/null "http://127.0.0.1:$port/health" && break
        sleep 0.2
    done
    from=$(cpu $service)
    "$B/service-load" --json --rate "$2" --duration "$duration" "127.0.0.1:$port" >"$out/load" ||
        [ $? -eq 1 ] || fail "the load could not run"
    to=$(cpu $service)
    if [ "$1" -ne 0 ]; then
        said=$(stated)
        [ "$said" = "$1" ] || fail "asked for a sample each $1 bytes, the profile says '$said'"
    fi
    answered=$(json "$out/load" requests_answered)
    awk "BEGIN { printf \"%.0f %.0f\n\", ($to - $from) / $tick * 1e9 / $answered,
                 $(json "$out/load" requests_per_second) }" >>"$out/$1-$2"
    kill "$service"
    wait "$service" || :
    service=
}

median() { # median FILE COLUMN
    awk "{ print \$$2 }" "$1" | sort -n |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

range() { # range FILE COLUMN
    awk "{ print \$$2 }" "$1" | sort -n | awk 'NR == 1 { a = $1 } { b = $1 } END { print a "-" b }'
}

for _ in $(seq "$rounds"); do
    for load in "$rate" 0; do
        for sample in 0 524288 1; do
            run $sample "$load"
        done
    done
done

printf '%-38s %10s %17s %7s %10s %17s %7s\n' "service before" "cpu ns/req" "min-max" "x" "req/s" "min-max" "x"
for load in "$rate" 0; do
    [ "$load" -eq 0 ] && what="as fast as it goes" || what="$load requests a second"
    for sample in 0 524288 1; do
        case $sample in 0) name="no profile" ;; 1) name="every allocation" ;; *) name="512 KiB" ;; esac
        base=$out/0-$load file=$out/$sample-$load
        printf '%-38s %10s %17s %7s %10s %17s %7s\n' "$what, $name" \
            "$(median "$file" 1)" "$(range "$file" 1)" \
            "$(awk "BEGIN { printf \"%.2f\", $(median "$file" 1) / $(median "$base" 1) }")" \
            "$(median "$file" 2)" "$(range "$file" 2)" \
            "$(awk "BEGIN { printf \"%.2f\", $(median "$file" 2) / $(median "$base" 2) }")"
    done
done
echo "targets: every allocation <= 1.30 cpu, >= 0.80 req/s; 512 KiB not to be told from none"
