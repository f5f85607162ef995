#!/bin/sh
# All benches with all their peers, one after the other, and what they come to: benches/RESULTS.md, its plots, and the figures of README and docs.
#
#   sh benches/run.sh                          everything, some 35 minutes on 2 cores after the build
#   sh benches/run.sh quick                    fewer rounds and sizes, some 10 minutes
#   sh benches/run.sh again                    beside the last run: RESULTS.md says which ratios differ by more than a fourth
#   sh benches/run.sh --only fanout,cluster    these two; the sections of the others stay as they are
#
# What it needs it installs, on Debian and its like; elsewhere it says what is missing, and a peer that is not there is left out. Leave the machine alone meanwhile.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$*"; }

only=""
effort=full
results=benches/results
while [ $# -gt 0 ]; do
    case "$1" in
        quick) effort=quick ;;
        again) results=benches/results/again ;;
        --only) only="${2:-}"; shift ;;
        *) echo "usage: sh benches/run.sh [quick] [again] [--only NAME,..]" >&2; exit 2 ;;
    esac
    shift
done

# ---- what it needs ----------------------------------------------------------------------------------------------------
command -v cargo >/dev/null 2>&1 || {
    echo "Missing: cargo. Install Rust by https://rustup.rs" >&2
    exit 1
}
missing=""
for program in elixir epmd redis-server nats-server ss taskset; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
    step "installing what is missing:$missing"
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    if command -v apt-get >/dev/null 2>&1 && { [ -z "$as_root" ] || command -v sudo >/dev/null 2>&1; }; then
        $as_root apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq elixir redis-server nats-server iproute2 util-linux >/dev/null
    else
        echo "Missing:$missing. Without redis-server and nats-server the benches of the engines fail; without elixir, ss or taskset they leave out what needs them." >&2
    fi
fi
# 10,000 connections, and as many on the other side, in a process each.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# ---- the benches ------------------------------------------------------------------------------------------------------
step "building"
cargo bench --quiet --all-features --no-run

folder="$(mktemp -d)"
trap 'rm -r "$folder"' EXIT
failed=""
took=""

# NAME BENCH FULL QUICK: the section, its bench, and what it is called with.
section() {
    case ",$only," in
        ,, | *",$1,"*) ;;
        *) return 0 ;;
    esac
    arguments="$3"
    [ "$effort" = full ] || arguments="$4"
    step "$1: $2 $arguments"
    start="$(date +%s)"
    # shellcheck disable=SC2086 # they are words
    if cargo bench --quiet --all-features --bench "$2" -- $arguments --json "$folder/$1.jsonl"; then
        mkdir -p "$results"
        mv "$folder/$1.jsonl" "$results/$1.jsonl"
    else
        failed="$failed $1"
    fi
    took="$took
  $1: $(($(date +%s) - start)) s"
}

section fanout fanout "--rounds 5" "--rounds 2"
section table table "--rounds 5" "--rounds 2"
section memory memory "" ""
section log log "--rounds 5 --large" "--rounds 2"
section jetstream jetstream "--rounds 3" "--rounds 1"
section cluster cluster "--rounds 5" "--rounds 2"
section transport transport "--rounds 5" "--rounds 2"
section web web "--n 100,1k,10k --rounds 3" "--n 100,10k --rounds 1"
section web-stalled web "--measure stalled --rounds 5" "--measure stalled --rounds 2"
section insight insight "--rounds 5" "--rounds 2"

# ---- what they come to ------------------------------------------------------------------------------------------------
step "writing benches/RESULTS.md, the plots, and the figures of README and docs"
cargo bench --quiet --all-features --bench report
printf '\nTook:%s\n' "$took"
if [ -n "$failed" ]; then
    echo "Failed, their sections are those of the last run that did not:$failed" >&2
    exit 1
fi
