#!/bin/sh
# The test command: everything, or with arguments only the tests that they select.
#
#   sh tests/run.sh                        format, lints, all tests, documentation
#   sh tests/run.sh server_refuses         the tests with that in their names
#   sh tests/run.sh -p enclasp-pki         as `cargo test` takes it
#
# Rust and a C compiler build Enclasp. The tests also use real peers. What is missing of them is
# installed if this is root on Debian or Ubuntu; otherwise what to install is printed, and the tests
# that need it are skipped (and fail where CI is set).
set -eu
cd "$(dirname "$0")/.."
export CARGO_TERM_PROGRESS_WHEN="${CARGO_TERM_PROGRESS_WHEN:-never}"
# nginx is where only root's PATH leads. A Rust of the user's own goes before the system's.
PATH="${HOME:-/root}/.cargo/bin:$PATH:/usr/sbin:/sbin"

say() {
    printf '\n== %s\n' "$*"
}

# One line for each part: program or file, Debian package, what is not tested without it.
parts() {
    cat <<'END'
openssl openssl requests, certificates, and almost every peer
python3 python3 the commands that the demo leaves to go on with
curl curl HTTP through the tunnels, and enrolment with curl
gnutls-serv gnutls-bin GnuTLS as server
gnutls-cli gnutls-bin GnuTLS as client
certtool gnutls-bin files that GnuTLS made
nginx nginx nginx as server
java openjdk-17-jdk-headless Java as server and client
javac openjdk-17-jdk-headless Java as server and client
keytool openjdk-17-jdk-headless Java as server and client
npm npm Kotlin: its compiler is fetched
/usr/share/java/jna.jar libjna-java Kotlin
/usr/lib/x86_64-linux-gnu/jni/libjnidispatch.system.so libjna-jni Kotlin
pki strongswan-pki enrolment with strongSwan
pinentry-curses pinentry-curses keys that ask a person
tmux tmux keys that ask a person
setpriv util-linux users of an agent other than its own
softhsm2-util softhsm2 keys on PKCS#11 tokens: SoftHSM
pkcs11-tool opensc keys on PKCS#11 tokens, made and read by OpenSC; our module by its tests
/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so libengine-pkcs11-openssl our module in OpenSSL, curl, nginx
tstclnt libnss3-tools our module in NSS
selfserv libnss3-tools handshakes that the doctor explains
wget wget handshakes that the doctor explains
chromium chromium handshakes that the doctor explains
modutil libnss3-tools our module in NSS
certutil libnss3-tools the console in Chromium
pk12util libnss3-tools the console in Chromium
chromium chromium the console in Chromium
sshd openssh-server our module in OpenSSH
ssh openssh-client our module in OpenSSH
swtpm swtpm keys in a TPM
/usr/include/tss2/tss2_esys.h libtss2-dev keys in a TPM
tpm2_createprimary tpm2-tools keys in a TPM that other tools made
/usr/lib/x86_64-linux-gnu/ossl-modules/tpm2.so tpm2-openssl keys in a TPM that other tools made
/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so libtpm2-pkcs11-1 keys on PKCS#11 tokens: a TPM
tpm2-abrmd tpm2-abrmd keys in a TPM behind a resource manager
/usr/lib/x86_64-linux-gnu/libtss2-tcti-tabrmd.so.0 libtss2-tcti-tabrmd0 keys in a TPM behind a resource manager
systemd-analyze systemd the units of systemd in the documentation
dbus-daemon dbus-daemon keys in a TPM behind a resource manager
haproxy haproxy replicas of an authority behind a load balancer
/usr/lib/postgresql/15/bin/postgres postgresql-15 an authority's records in PostgreSQL
stunnel4 stunnel4 STARTTLS of SMTP, IMAP and PostgreSQL
slapd slapd STARTTLS of LDAP
mariadbd mariadb-server-core STARTTLS of MySQL
pk12util libnss3-tools handshakes that the doctor explains
/usr/include/openssl/ssl.h libssl-dev keys on PKCS#11 tokens: kryoptic, which is built
/usr/lib/llvm-14/lib/libclang.so libclang-14-dev keys on PKCS#11 tokens: kryoptic, which is built
/usr/bin/rustc rustc-web the types of what is for Apple's systems and for Windows
/usr/bin/cargo cargo-web the types of what is for Apple's systems and for Windows
/usr/lib/rustlib/src/rust/library/Cargo.lock rust-web-src the types of what is for Apple's systems and for Windows
END
}

missing_parts() {
    parts | while read -r program package what; do
        command -v "$program" >/dev/null 2>&1 || [ -e "$program" ] || printf '%s %s %s\n' "$program" "$package" "$what"
    done
}

missing_packages() {
    missing_parts | cut -d' ' -f2 | sort -u | tr '\n' ' '
}

# Packages of servers would start them. They are wanted here as programs only.
without_starting_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    outcome=0
    "$@" || outcome=$?
    rm -f "$policy"
    return "$outcome"
}

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1 </dev/null
}

install_parts() {
    # shellcheck disable=SC2046 # One word for each package.
    set -- $(missing_packages)
    say "installing $*"
    log=$(mktemp)
    # The lists may be missing or old; only then are they fetched.
    if ! without_starting_services install "$@"; then
        apt-get update -q >"$log" 2>&1 </dev/null || true
        # One by one, so that a package that is not to be had keeps out no other.
        for package in "$@"; do
            without_starting_services install "$package" || tail -n 5 "$log"
        done
    fi
    rm -f "$log"
}

if [ -n "$(missing_packages)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    install_parts
fi
if [ -n "$(missing_packages)" ]; then
    say "some tests will be skipped"
    missing_parts | while read -r program _ what; do
        printf 'without %s: %s\n' "$program" "$what"
    done
    printf 'To run them, too: apt-get install %s\n' "$(missing_packages)"
fi

# TPMs need a C library; everything is built and tested once, with them where it is.
features=""
if [ -e /usr/include/tss2/tss2_esys.h ]; then
    features="--features enclasp-cli/tpm"
fi
# shellcheck disable=SC2086 # Two words or none.
if [ "$#" -gt 0 ]; then
    say "tests: $*"
    exec cargo test --release --workspace $features "$@"
fi
say "format"
cargo fmt --all --check
say "lints"
# shellcheck disable=SC2086
cargo clippy --release --workspace --all-targets $features -- -D warnings
if [ -z "${ENCLASP_KRYOPTIC_MODULE:-}" ]; then
    say "kryoptic, a PKCS#11 token to test with"
    if ENCLASP_KRYOPTIC_MODULE=$(sh tests/kryoptic/build.sh); then
        export ENCLASP_KRYOPTIC_MODULE
    else
        unset ENCLASP_KRYOPTIC_MODULE
    fi
fi
say "tests"
# shellcheck disable=SC2086
cargo test --release --workspace $features
say "other platforms"
sh tests/check-platforms.sh
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --workspace
say "all is well"
