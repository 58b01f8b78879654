//! What cannot be meant is refused before anything is opened: one line says what is wrong, one what to
//! do.

use crate::harness::Home;

#[test]
fn wrong_combinations_of_flags_are_refused_in_one_line() {
    let home = Home::new();
    let server = "server --listen 127.0.0.1:0 --target 127.0.0.1:1";
    let client = "client --listen 127.0.0.1:0 --target localhost:1";
    let files = "--cert c.pem --key k.pem";
    for (line, said) in [
        (format!("{server} --identity srv"), "no access rule is given"),
        (format!("{server} --allow-all"), "nothing says which certificate to present"),
        (format!("{server} --identity srv --allow-all --allow-cn a"), "--allow-all and other access rules"),
        (format!("{server} --identity srv --allow-all --allow cn=a"), "--allow-all and other access rules"),
        (
            format!("{server} --identity srv --disable-authentication --allow-uri a:b"),
            "--disable-authentication and access rules exclude each other",
        ),
        (format!("{server} --identity srv --allow-ip host"), "invalid IP address"),
        (format!("{server} --identity srv --allow-spki-pin 00"), "is not a pin"),
        (format!("{server} --identity srv --allow-uri a***"), "is not a pattern of URIs"),
        (format!("{server} --identity srv --allow o=Acme"), "write cn=, ou=, dns=, uri=, ip= or spki="),
        (format!("{server} --allow-all --identity srv {files}"), "--identity excludes"),
        (format!("{server} --allow-all --identity srv --keystore k.p12"), "--identity excludes"),
        (format!("{server} --allow-all {files} --keystore k.p12"), "--keystore excludes --cert and --key"),
        (format!("{server} --allow-all --cert c.pem"), "--cert needs the private key"),
        (format!("{server} --allow-all --key k.pem"), "--key needs the certificate"),
        (format!("{server} --allow-all {files} --storepass x"), "--storepass is for --keystore"),
        (
            format!("{server} --allow-all --keystore k --storepass x --storepass-file f"),
            "--storepass and --storepass-file exclude each other",
        ),
        (format!("{server} --allow-all {files} --pkcs11-pin 1"), "need --pkcs11-module"),
        (format!("{server} --allow-all {files} --pkcs11-module m.so"), "--pkcs11-module and --key"),
        (format!("{server} --allow-all --pkcs11-module m.so"), "needs the certificate"),
        (format!("{server} --allow-all {files} --tls-min 1.3 --max-tls-version 1.2"), "is above"),
        (format!("{server} --allow-all {files} --timed-reload 10"), "is not a duration"),
        (format!("{server} --allow-all {files} --drop-revoked"), "--drop-revoked needs a list"),
        (format!("{server} --allow-all {files} --crl a.crl --crl-refresh 0"), "--crl-refresh is 0"),
        (format!("{server} --allow-all {files} --renew"), "--renew is for identities"),
        (format!("{server} --allow-all {files} --metrics-prefix 9a"), "cannot begin a name"),
        (format!("{server} --allow-all {files} --metrics-prefix a/b"), "cannot begin a name"),
        (format!("{server} --allow-all {files} --metrics-url https://a"), "does not begin with http://"),
        (format!("{client} {files} --proxy proxy:3128"), "cannot use `proxy:3128`"),
        (format!("{client} {files} --disable-authentication"), "exclude each other"),
        (format!("{client} --identity a --disable-authentication"), "exclude each other"),
        (format!("{client} --identity a --allow-all"), "--allow-all"),
        ("client --listen 127.0.0.1:0 --target unix:/x --identity a".into(), "has no host name"),
        ("client --listen :0 --target localhost:1 --identity a".into(), "would let other machines"),
        ("server --listen 127.0.0.1:0 --target db:1 --identity a --allow-all".into(), "in the clear"),
        ("server --target 127.0.0.1:1 --identity a --allow-all".into(), "--listen <ADDRESS>"),
    ] {
        let done = home.enclasp(&line).fails(2).says("error: ").says(said).says("\nhint: ");
        assert_eq!(done.stderr.lines().count(), 2, "{done}");
        assert!(done.stdout.is_empty(), "{done}");
    }
    assert!(!home.state().exists(), "wrong usage makes nothing");
}
