#!/bin/sh
# Every check of this repository, on a machine that may have nothing but Rust: `sh tests/run.sh`
# What it needs it installs, on Debian and its like; elsewhere it says what is missing.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n==> %s\n' "$*"; }

# ---- what it needs ----------------------------------------------------------------------------------------------------
command -v cargo >/dev/null 2>&1 || {
    echo "Missing: cargo. Install Rust by https://rustup.rs, with the components rustfmt and clippy." >&2
    exit 1
}
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || {
        echo "Missing: cargo $component. Install it: rustup component add rustfmt clippy" >&2
        exit 1
    }
done
missing=""
for program in chromium chromedriver ip node redis-server nats-server unshare valgrind; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
command -v cc >/dev/null 2>&1 || missing="$missing cc"
if [ -n "$missing" ]; then
    step "installing what is missing:$missing"
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    if command -v apt-get >/dev/null 2>&1 && { [ -z "$as_root" ] || command -v sudo >/dev/null 2>&1; }; then
        $as_root apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq chromium chromium-driver gcc iproute2 libc6-dev nodejs redis-server nats-server util-linux valgrind >/dev/null
    else
        echo "Missing:$missing. Install them: a C compiler for the build, Chromium and its chromedriver for the browser test, Node.js for the browser client, redis-server and nats-server for the stores, iproute2 and util-linux for networks whose links go down, valgrind to count instructions." >&2
        exit 1
    fi
fi
# Links that go down need network namespaces, a disk that fills one with mounts of its own. A machine that may not make any is told so, and leaves out what they show only if somebody says so.
left_out=""
if ! { unshare -Urnm true || unshare -nm true; } 2>/dev/null; then
    left_out="clusters whose network splits (cluster_splits), and a disk that is full (soak): this machine may not make namespaces"
    if [ "${WITHOUT_NAMESPACES:-}" != 1 ]; then
        echo "Cannot be checked: $left_out. Be root with CAP_SYS_ADMIN and CAP_NET_ADMIN, allow user namespaces, or leave it out: WITHOUT_NAMESPACES=1 sh tests/run.sh" >&2
        exit 1
    fi
fi
# Of Debian's package only the tester of rules: the whole of it would start a server.
command -v promtool >/dev/null 2>&1 || {
    step "installing promtool"
    if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
        echo "Missing: promtool, for the alert rules. Put that of a Prometheus release into the PATH: https://prometheus.io/download/" >&2
        exit 1
    fi
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    $as_root apt-get update -qq
    folder="$(mktemp -d)"
    (cd "$folder" && apt-get download -qq prometheus 2>/dev/null && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
    $as_root install -m 755 "$folder/usr/bin/promtool" /usr/local/bin/promtool
    rm -r "$folder"
}
for tool in nextest hack; do
    cargo "$tool" --version >/dev/null 2>&1 || {
        step "installing cargo-$tool; it is compiled, which takes some minutes"
        cargo install --quiet --locked "cargo-$tool"
    }
done

# Compiling it takes longer than it finds: it is for who has it, and for every change of a dependency.
command -v cargo-deny >/dev/null 2>&1 && deny=1 || deny=""

# ---- the checks -------------------------------------------------------------------------------------------------------
step "format"
cargo fmt --all --check

step "clippy"
cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings

step "mutations, whether their lists fit the source"
cargo test --quiet -p mutations
cargo run --quiet -p mutations -- --check

step "each feature alone"
cargo hack --quiet check --each-feature --no-dev-deps

step "tests, the examples and the browser among them"
# The soak runs for minutes, or hours, by itself; here it is one test of many.
export SOAK_SECONDS="${SOAK_SECONDS:-30}"
if [ -z "$left_out" ]; then
    cargo nextest run --all-features --no-fail-fast
else
    cargo nextest run --all-features --no-fail-fast -E 'not test(/^cluster_splits::/)'
fi

step "the browser client"
node --test tests/js/client.test.mjs

step "documentation tests"
cargo test --quiet --doc --all-features

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features

step "benches, in their test mode"
cargo test --quiet --benches --all-features -- --test

if [ -n "$deny" ]; then
    step "licences and sources of the dependencies"
    cargo deny --log-level error check bans licenses sources
fi

step "instructions of the hot paths"
cargo run --quiet --release -p instructions

if [ -z "$left_out" ]; then
    step "all is well"
else
    step "all is well but for what was left out: $left_out"
fi
