#!/bin/sh
# Fetches the Kotlin compiler with its libraries and prints the folder where it is, for the tests to use it. It needs
# npm, and a JDK to run.
set -eu
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
version=2.4.20
sha512=205e4854cecba4f840fe7b47410a5a56dd72c6969a428bed11560bcaa58cb9a2ebd177a52cf3e6effb0ce872e1b5c4638e3a12b0aec8ee53f693360990ccbbdf
target=${CARGO_TARGET_DIR:-$here/../../target}/kotlin
folder=$target/kotlin-compiler-$version
if [ ! -d "$folder" ]; then
    mkdir -p "$target"
    new=$(mktemp -d "$target/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    npm pack "kotlin-compiler@$version" --silent --pack-destination "$new" >&2
    echo "$sha512  $new/kotlin-compiler-$version.tgz" | sha512sum --check --quiet >&2
    tar -xzf "$new/kotlin-compiler-$version.tgz" -C "$new"
    mv "$new/package" "$folder"
fi
CDPATH= cd "$folder" && pwd
