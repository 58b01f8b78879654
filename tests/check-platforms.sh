#!/bin/sh
# Type-checks the keystores of platforms that are not here: Apple's and Windows'. Nothing of them is run.
#
#   sh tests/check-platforms.sh                          all targets
#   sh tests/check-platforms.sh aarch64-apple-ios        one of them
#
# It takes a Rust compiler with its own sources, as Debian packages one (rustc-web, cargo-web, rust-web-src):
# the standard library is checked for the target, too, so that nothing has to be downloaded for it. No C
# compiler for the target is needed, as the keystore is checked without aws-lc.
set -eu
cd "$(dirname "$0")/.."
export CARGO_TERM_PROGRESS_WHEN=never

rust=/usr/bin
if ! [ -e "$("$rust/rustc" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    echo "not checked for other platforms: $rust/rustc has no sources (Debian: rustc-web cargo-web rust-web-src)" >&2
    [ -z "${CI:-}" ]
    exit
fi
[ "$#" -gt 0 ] || set -- aarch64-apple-darwin aarch64-apple-ios x86_64-pc-windows-msvc
echo "checking the keystore for $*"
for target in "$@"; do
    shift
    set -- "$@" --target "$target"
done
# The sources come with the compiler; that they can be used so is not stable yet.
PATH="$rust:/bin" RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=target/platforms \
    "$rust/cargo" check -q -Zbuild-std --all-targets "$@" -p enclasp-keystore --no-default-features
