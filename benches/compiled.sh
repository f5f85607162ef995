#!/bin/sh
# What metrics and spans cost while nobody collects them: the bench `insight` built twice, with them and without, and run in turns.
# `sh benches/compiled.sh [rounds]`; with valgrind it counts the instructions of a burst, too, which other work on the machine does not change.
#
# Without: no feature `metrics`, `prometheus` or `opentelemetry`, and `tracing` switched off by its own feature `release_max_level_off`, so that no span or event of it is in the program.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-15}
numbers=$(mktemp -d)
trap 'rm -rf "$numbers"' EXIT

build() {
    cargo bench --quiet --no-run --bench insight --message-format=json --no-default-features --features "$1" |
        sed -n 's/.*"executable":"\([^"]*\/insight-[^"]*\)".*/\1/p' | tail -n 1
}
without=$(build tracing/release_max_level_off)
with=$(build prometheus,opentelemetry)
[ "$without" != "$with" ] || { echo "the two builds are one" >&2; exit 1; }

# Subscribers, and bursts of 16 broadcasts that take about a second.
bursts() { "$1" --bench --only bursts --n "$2" --rounds "$3" | sed -n 's/^bursts [0-9]* [0-9]* //p'; }
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

echo "deliveries per second on one arbiter, medians of $rounds rounds in turns:"
for size in 1000:2000 100000:20; do
    members=${size%:*} count=${size#*:} round=0
    : >"$numbers/without"; : >"$numbers/with"; : >"$numbers/ratios"
    while [ "$round" -lt "$rounds" ]; do
        # Who goes first changes.
        if [ $((round % 2)) = 0 ]; then
            a=$(bursts "$without" "$members" "$count"); b=$(bursts "$with" "$members" "$count")
        else
            b=$(bursts "$with" "$members" "$count"); a=$(bursts "$without" "$members" "$count")
        fi
        echo "$a" >>"$numbers/without"; echo "$b" >>"$numbers/with"
        awk "BEGIN { print $b / $a }" >>"$numbers/ratios"
        round=$((round + 1))
    done
    awk "BEGIN { printf \"  %6d subscribers  without %.2f M/s  with %.2f M/s  ratio of medians %.4f  median of ratios %.4f\n\", $members, \
        $(median "$numbers/without") / 1e6, $(median "$numbers/with") / 1e6, $(median "$numbers/with") / $(median "$numbers/without"), $(median "$numbers/ratios") }"
done

command -v valgrind >/dev/null 2>&1 || { echo "no valgrind here: instructions are not counted"; exit 0; }
# What is not a burst, start and end, is taken out by a second run with more bursts.
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" --bench --only bursts --n 1000 --rounds "$2" 2>&1 | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
burst() { echo $((($(instructions "$1" 60) - $(instructions "$1" 10)) / 50)); }
a=$(burst "$without") b=$(burst "$with")
awk "BEGIN { printf \"instructions of a burst of 16 broadcasts to 1000 subscribers: without %d, with %d, ratio %.4f; of a delivery %.1f and %.1f\n\", $a, $b, $b / $a, $a / 16000, $b / 16000 }"
