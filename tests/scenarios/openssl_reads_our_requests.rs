//! `openssl req -verify` accepts what `enclasp csr create` makes, in DER and PEM, whatever the names.

use crate::harness::{ALGORITHMS, Home, needs, run};

#[test]
fn with_every_type_of_key() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    for algorithm in ALGORITHMS {
        home.enclasp(&format!("key create soft:name={algorithm} --algorithm {algorithm}")).succeeds();
        let names = "--subject CN=web,OU=Ops,O=Acme,L=Bern,ST=BE,C=CH --san dns:localhost --san ip:::1 \
                     --san uri:spiffe://acme/web --san email:ops@acme.example";
        for (form, flag) in [("PEM", ""), ("DER", "--der")] {
            home.enclasp(&format!("csr create --key soft:name={algorithm} {names} {flag} --out web.csr"))
                .succeeds();
            home.openssl(&format!("req -in web.csr -inform {form} -verify -noout -text -nameopt RFC2253"))
                .says("self-signature verify OK")
                .prints("Subject: CN=web,OU=Ops,O=Acme,L=Bern,ST=BE,C=CH")
                .prints("DNS:localhost, IP Address:0:0:0:0:0:0:0:1, URI:spiffe://acme/web, email:ops@acme.example");
        }
        // Without --out it is standard output, and nothing else is.
        let pem =
            home.enclasp(&format!("csr create --key soft:name={algorithm} --subject CN=web")).succeeds();
        assert!(pem.text().starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{pem}");
        let done = crate::harness::run_with_input(home.program("openssl", "req -verify -noout"), &pem.stdout);
        done.succeeds().says("self-signature verify OK");
    }
}

/// Lengths over 127 and over 255 bytes, where hand-made DER goes wrong, and characters beyond ASCII.
#[test]
fn with_names_of_every_length() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    home.enclasp("key create soft:name=web").succeeds();
    for length in [1, 63, 64] {
        // In UTF-8 each of these takes two bytes.
        let name = "ü".repeat(length);
        let mut command = home.command("csr create --key soft:name=web --der --out web.csr --subject");
        command.arg(format!("CN={name},O=Größe \\+ Söhne\\, Zürich,OU={}", "ß".repeat(64)));
        run(command).succeeds();
        home.openssl("req -in web.csr -inform DER -verify -noout -subject -nameopt RFC2253,utf8,-esc_msb")
            .says("self-signature verify OK")
            .prints(&format!("CN={name},O=Größe \\+ Söhne\\, Zürich,OU={}", "ß".repeat(64)));
    }
    for count in [1, 4, 8, 200, 3000] {
        let mut command = home.command("csr create --key soft:name=web --subject CN=web --der --out web.csr");
        command.args((0..count).flat_map(|n| ["--san".to_owned(), format!("dns:host-{n}.acme.example")]));
        run(command).succeeds();
        home.openssl("req -in web.csr -inform DER -verify -noout -text")
            .says("self-signature verify OK")
            .prints(&format!("DNS:host-{}.acme.example", count - 1));
    }
}

#[test]
fn refusals_name_the_part_that_is_wrong() {
    let home = Home::new();
    home.enclasp("csr create --key soft:name=web --subject CN=web")
        .fails(1)
        .says("error: there is no key `soft:name=web`")
        .says("hint: make it first: `enclasp key create soft:name=web`");
    home.enclasp("key create soft:name=web").succeeds();
    for (subject, san, reason) in [
        ("web", "dns:web", "no `=`"),
        ("CN=web,XY=1", "dns:web", "XY"),
        ("CN=web", "web", "web"),
        ("CN=web", "ip:10.0.0.256", "10.0.0.256"),
        ("CN=web", "dns:a b", "dns"),
    ] {
        let mut command = home.command("csr create --key soft:name=web");
        command.args(["--subject", subject, "--san", san]);
        run(command).fails(2).says(reason);
    }
}
