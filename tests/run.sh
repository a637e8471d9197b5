#!/bin/sh
# tests/run.sh BINARY... - runs each cmocka binary, shows what failed, and sums up in a last line.
#
# TEST_UNDER is a command to run each binary under. A binary that crashes, hangs for TEST_TIMEOUT seconds or sums up nothing counts as one failed test.
set -u
passed=0 failed=0 skipped=0
timeout=${TEST_TIMEOUT:-150}

count() { # count LABEL LOG: the number in cmocka's summary line of that label
    n=$(sed -n "s/^\[ *$1 *\] \(tests: \)*\([0-9][0-9]*\) test(s).*/\2/p" "$2" | tail -n 1)
    echo "${n:-0}"
}

for binary in "$@"; do
    log=$binary.log
    start=$(date +%s)
    # shellcheck disable=SC2086 # TEST_UNDER is a command and its words
    timeout -k 5 "$timeout" ${TEST_UNDER:-} "$binary" >"$log" 2>&1 </dev/null
    code=$?
    ok=$(count PASSED "$log") bad=$(count FAILED "$log") skip=$(count SKIPPED "$log")
    if [ "$code" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        echo "$(basename "$binary"): ended with exit code $code" | tee -a "$log"
    fi
    if [ "$code" -eq 0 ] && [ "$ok" -eq 0 ] && [ "$skip" -eq 0 ]; then
        bad=1
        echo "$(basename "$binary"): ran no test" | tee -a "$log"
    fi
    printf '%-24s %4d passed %3d failed %3d skipped  %3d s\n' "$(basename "$binary")" "$ok" "$bad" "$skip" \
        $(($(date +%s) - start))
    [ "$bad" -eq 0 ] || grep -v '^\[ RUN\|^\[       OK' "$log" | tail -n 60
    [ "$skip" -eq 0 ] || sed -n 's/^\[  SKIPPED \] \([a-z_].*\)/    skipped: \1/p' "$log" | sort -u
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
done
echo
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
