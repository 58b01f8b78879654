//! Flags that ghostunnel has and we do not are known by name, and never ignored.

use crate::harness::Home;

#[test]
fn flags_that_are_not_supported_are_refused_with_the_alternative() {
    let home = Home::new();
    for (flag, instead) in [
        ("--auto-acme-cert=example.com", "enclasp enroll"),
        ("--auto-acme-email a@b.c", "enclasp enroll"),
        ("--keychain-identity web", "enclasp identity import"),
        ("--use-workload-api", "SPIFFE"),
        ("--use-workload-api-addr unix:/x", "SPIFFE"),
        ("--allow-policy p.rego", "--allow 'cn=web and ou=Ops'"),
        ("--verify-query data.allow", "--verify 'dns=db and ou=Data'"),
        ("--enable-pprof", "perf"),
        ("--cipher-suites AES", "--tls-min 1.3"),
    ] {
        for line in [
            format!("server --listen 127.0.0.1:0 --target 127.0.0.1:1 --identity srv --allow-all {flag}"),
            format!("{flag} client --listen 127.0.0.1:0 --target localhost:1 --identity laptop"),
        ] {
            let name = flag.split([' ', '=']).next().unwrap_or(flag);
            let done =
                home.enclasp(&line).fails(2).says(&format!("error: {name} is not supported: ")).says(instead);
            assert_eq!(done.stderr.lines().count(), 2, "{done}");
        }
    }
}
