#!/bin/sh
# Builds kryoptic's PKCS#11 module and prints its path, for the tests to have it:
#   export ENCLASP_KRYOPTIC_MODULE=$(tests/kryoptic/build.sh)
# It needs OpenSSL's headers and libclang (Debian: libssl-dev, libclang-14-dev), and a few minutes the first time.
set -eu
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/kryoptic
cargo build --release --locked --manifest-path "$here/Cargo.toml" --target-dir "$target" -p kryoptic --lib >&2
echo "$(CDPATH= cd "$target" && pwd)/release/libkryoptic_pkcs11.so"
