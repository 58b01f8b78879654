//! `enclasp ca rotate`: a new issuing certificate, and a new root. What was issued before stays good and can be
//! revoked, devices follow by themselves, and a crash at any step leaves an authority that works.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Done, Home, Running, eventually, free_ports, needs, run};
use crate::peers::s_server;

struct Authority {
    _running: Running,
    port: u16,
}

fn made(home: &Home) -> u16 {
    let port = free_ports(2);
    let (url, public) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    home.enclasp(&format!("ca init --dir ca --name Acme --url {url} --http-url {public}")).succeeds();
    port
}

fn serve(home: &Home, port: u16) -> Authority {
    let running = home.serve("ca", port);
    running.stderr.wait_for("CRLs and OCSP on ");
    Authority { _running: running, port }
}

/// An authority that runs, and what has enrolled there.
fn with_a_laptop(home: &Home) -> (u16, Authority) {
    let port = made(home);
    let ca = serve(home, port);
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    (port, ca)
}

fn show(home: &Home) -> Value {
    home.enclasp("ca show --dir ca --json").succeeds().json()
}

/// The SHA-256 of the issuers in that state.
fn in_state(shown: &Value, state: &str) -> Vec<String> {
    let issuers = shown["issuers"].as_array().expect("a list").iter();
    let found = issuers.filter(|issuer| issuer["state"] == state);
    found.map(|issuer| issuer["sha256"].as_str().expect("text").to_owned()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn both_answer_for_what_they_issued() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::new();
    let (port, ca) = with_a_laptop(&home);
    home.peer("old", "p256", "client");
    home.enclasp("ca rotate --dir ca").succeeds().says("start `enclasp ca serve` again");
    drop(ca);
    let ca = serve(&home, port);
    home.peer("new", "p256", "client");

    let shown = show(&home);
    let (former, issuing) = (in_state(&shown, "former"), in_state(&shown, "issuing"));
    assert_eq!((former.len(), issuing.len()), (1, 1), "{shown}");
    let new_file = text(&shown["issuing_pem"]).to_owned();
    let sides = [("old", "ca/issuing.pem", &former[0]), ("new", &new_file, &issuing[0])];
    for (name, file, _) in sides {
        home.openssl(&format!("verify -CAfile ca/root.pem -untrusted {file} {name}.pem"));
        answers(&home, &ca, name, file).prints(&format!("{name}.pem: good"));
    }
    let issuer = |name: &str| home.openssl(&format!("x509 -in {name}.pem -noout -issuer")).text();
    assert_ne!(issuer("old"), issuer("new"));

    for (name, file, sha256) in sides {
        home.enclasp(&format!("ca revoke --dir ca {name}")).succeeds();
        home.enclasp(&format!("ca crl --dir ca --issuer {} --out {name}.crl", &sha256[..12])).succeeds();
        let line =
            format!("verify -crl_check -CAfile ca/root.pem -untrusted {file} -CRLfile {name}.crl {name}.pem");
        run(home.program("openssl", &line)).fails_somehow().says("certificate revoked");
        eventually("OCSP says so", || {
            let asked = answers(&home, &ca, name, file);
            asked.text().contains(&format!("{name}.pem: revoked")) && asked.stderr.contains("verify OK")
        });
    }
    home.enclasp("ca crl --dir ca --issuer 00ff").fails(1).says("no issuer's SHA-256 begins like that");
    // A device goes on with the new one by itself.
    home.enclasp("renew laptop").succeeds();
    let exported = home.enclasp("ca audit export --dir ca").succeeds();
    assert!(exported.text().contains("\"event\":\"issuer changed\""), "{exported}");
    home.enclasp("ca audit verify --dir ca").succeeds();
    // A backup has the new certificates, and names the old key.
    let saved = home.enclasp("ca backup --dir ca --out saved --json").succeeds().json();
    assert!(saved["keys_needed"].as_array().unwrap().iter().any(|key| key["role"] == "former issuing"));
    home.enclasp("ca restore --from saved --dir restored").succeeds();
    home.enclasp("ca show --dir restored").succeeds().prints("former: signs CRLs and OCSP");
}

fn answers(home: &Home, ca: &Authority, name: &str, issuer: &str) -> Done {
    let url = format!("http://127.0.0.1:{}/ocsp", ca.port + 1);
    let line = format!("ocsp -issuer {issuer} -CAfile ca/root.pem -url {url} -cert {name}.pem");
    run(home.program("openssl", &line))
}

#[test]
fn the_old_one_retires() {
    if !needs(&["openssl"]) {
        return;
    }
    let home = Home::with_authority();
    home.peer_request("brief", "p256");
    home.enclasp("ca sign --dir ca brief.csr --lifetime 8s --out brief.pem").succeeds();
    home.enclasp("ca rotate --dir ca").succeeds();
    eventually("it has nothing to answer for", || in_state(&show(&home), "retired").len() == 1);
    home.peer("later", "p256", "client");
    // Without its key, the authority is whole.
    let retired =
        show(&home)["issuers"].as_array().unwrap().iter().find(|one| one["state"] == "retired").cloned();
    home.enclasp(&format!("key delete --yes {}", text(&retired.unwrap()["key"]))).succeeds();
    home.enclasp("ca crl --dir ca").succeeds();
}

/// Who knows only the old root follows to the new one.
#[test]
fn devices_follow_a_new_root() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let home = Home::new();
    let (port, ca) = with_a_laptop(&home);
    let old_token = home.token("--cn tablet");
    home.enclasp("ca rotate --dir ca --root").succeeds();
    drop(ca);
    let _ca = serve(&home, port);
    let shown = show(&home);
    let (root, issuing) = (text(&shown["root_pem"]), text(&shown["issuing_pem"]));
    assert_ne!(root, "ca/root.pem");

    // RFC 7030 §4.1.3: the old with the new, the new with the old, and both with themselves.
    let fetched = home.program(
        "curl",
        &format!("-sS --cacert ca/root.pem -o cacerts.b64 https://127.0.0.1:{port}/.well-known/est/cacerts"),
    );
    run(fetched).succeeds();
    home.openssl("base64 -d -A -in cacerts.b64 -out cacerts.p7");
    let listed = home.openssl("pkcs7 -inform DER -in cacerts.p7 -print_certs -noout").text();
    let is_old = |line: &str| line.trim_end().ends_with("= Acme Root CA");
    let lines: Vec<_> = listed.lines().filter(|line| !line.is_empty()).collect();
    let of_roots = lines.chunks(2).filter(|pair| pair.iter().all(|line| line.contains("Root CA")));
    let found: BTreeSet<_> = of_roots.map(|pair| (is_old(pair[0]), is_old(pair[1]))).collect();
    assert_eq!(found.len(), 4, "{listed}");

    // A token of before, one of now, and a device that renews.
    home.write("token", old_token);
    home.enclasp("enroll --token-file token --identity tablet").succeeds();
    home.token("--cn phone");
    home.enclasp("enroll --token-file token --identity phone").succeeds();
    home.enclasp("renew laptop").succeeds();

    home.peer("new", "p256", "server");
    home.openssl(&format!("verify -CAfile ca/root.pem -untrusted {issuing} new.pem"));
    home.openssl(&format!("verify -CAfile {root} -untrusted {issuing} new.pem"));
    // All of them know the new root now: a server that does not mention the old one is believed, and believes them.
    let pem = String::from_utf8(home.read("new.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let bare: String = pem.split_inclusive(end).take(2).collect();
    home.write("new.pem", bare);
    for (device, trusted) in [("laptop", root), ("tablet", root), ("phone", root), ("laptop", "ca/root.pem")]
    {
        let (_server, tls) = s_server(&home, "new", trusted, "");
        home.enclasp_with_input(&format!("connect localhost:{tls} --identity {device}"), "ping\n")
            .succeeds()
            .prints("gnip");
    }
}

#[test]
fn a_crash_leaves_a_usable_authority() {
    if !needs(&["openssl", "cc"]) {
        return;
    }
    for flags in ["", "--root"] {
        let home = Home::with_authority();
        home.peer_request("web", "p256");
        let rotate = format!("ca rotate --dir ca {flags}");
        let mut steps = 0;
        for step in 1.. {
            let before = in_state(&show(&home), "issuing");
            let ended = home.killed_at(step, &rotate);
            // Whatever it is now, it issues, and says who did.
            home.enclasp("ca sign --dir ca web.csr --out web.pem").succeeds();
            home.enclasp("ca crl --dir ca").succeeds();
            let shown = show(&home);
            home.openssl(&format!(
                "verify -CAfile {} -untrusted {} web.pem",
                text(&shown["root_pem"]),
                text(&shown["issuing_pem"])
            ));
            if let Some(done) = ended {
                done.succeeds();
                steps = step;
                break;
            }
            if in_state(&shown, "issuing") == before {
                home.enclasp(&rotate).succeeds();
            }
            assert_ne!(in_state(&show(&home), "issuing"), before, "step {step}");
        }
        assert!(steps > 10, "{steps} steps are too few");
        // Each attempt has left one key, and nothing else.
        let shown = show(&home);
        let issuers: BTreeSet<_> =
            shown["issuers"].as_array().unwrap().iter().map(|one| one["key"].to_string()).collect();
        assert_eq!(issuers.len(), shown["issuers"].as_array().unwrap().len(), "{shown}");
        assert!(!home.path("ca/rotating.toml").exists());
    }
}
