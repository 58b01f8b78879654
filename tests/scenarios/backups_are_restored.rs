//! An authority is backed up while it serves, lost, and restored: from SQLite, and from SQLite to PostgreSQL and
//! back.

use crate::harness::{Home, Postgres, needs};

fn crl_number(home: &Home, dir: &str) -> u64 {
    home.enclasp(&format!("ca crl --dir {dir} --out crl.pem")).succeeds();
    let text = home.openssl("crl -in crl.pem -noout -crlnumber").text();
    u64::from_str_radix(text.trim().trim_start_matches("crlNumber=").trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn what_was_saved_goes_on() {
    if !needs(&["openssl"]) {
        return;
    }
    let (home, authority, port) = Home::with_serving_authority();
    for name in ["laptop", "phone"] {
        home.token(&format!("--cn {name}"));
        home.enclasp(&format!("enroll --token-file token --identity {name}")).succeeds();
    }
    home.enclasp("ca revoke --dir ca phone").succeeds();
    let number = crl_number(&home, "ca");
    home.write("kept", home.enclasp("ca audit export --dir ca").succeeds().stdout);
    home.token("--cn tablet");
    let saved = home.enclasp("ca backup --dir ca --out saved --json").succeeds().json();
    assert_eq!(saved["certificates"], home.issued().len());
    let roles: Vec<_> =
        saved["keys_needed"].as_array().unwrap().iter().map(|key| key["role"].clone()).collect();
    assert_eq!(roles, ["root", "issuing", "server", "ocsp", "audit"]);
    home.enclasp("ca backup --dir ca --out saved").fails(1).says("already");
    // Of this one the backup knows nothing.
    home.identity("late", "p256", "client");
    drop(authority);
    std::fs::remove_dir_all(home.path("ca")).unwrap();
    home.enclasp("ca restore --from nowhere --dir ca").fails(1).says("nowhere");
    home.enclasp("ca restore --from saved --dir ca").succeeds().says("keys");
    home.enclasp("ca restore --from saved --dir ca").fails(1).says("already");

    let _authority = home.serve("ca", port);
    home.enclasp("renew laptop").succeeds();
    home.enclasp("renew phone").fails(1).says("was revoked");
    // A token that was not spent still is good.
    home.enclasp("enroll --token-file token --identity tablet").succeeds();
    home.enclasp("ca revoke --dir ca late").fails(1);
    assert!(crl_number(&home, "ca") > number);
    home.openssl(
        "verify -crl_check -CAfile ca/root.pem -untrusted ca/issuing.pem -CRLfile crl.pem ca/server.pem",
    );
    // The log goes on from what was kept before the backup, and tells of the restoration.
    home.enclasp("ca audit verify --dir ca --head kept").succeeds();
    assert!(home.enclasp("ca audit export --dir ca").succeeds().text().contains("\"event\":\"restored\""));
}

#[test]
fn between_databases() {
    let Some(postgres) = Postgres::start() else { return };
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.enclasp("ca backup --dir ca --out saved").succeeds();
    home.enclasp(&format!("ca restore --from saved --dir ca2 --database {}", postgres.url())).succeeds();
    home.request("db", "p256");
    home.enclasp("ca sign --dir ca2 db.csr --out db.pem").succeeds();
    home.enclasp(&format!("ca restore --from saved --dir ca3 --database {}", postgres.url()))
        .fails(1)
        .says("another authority");
    home.enclasp("ca backup --dir ca2 --out saved2").succeeds();
    home.enclasp("ca restore --from saved2 --dir ca4").succeeds();
    let listed = home.enclasp("ca list --dir ca4").succeeds().text();
    assert!(listed.contains("CN=web") && listed.contains("CN=db"), "{listed}");
    home.enclasp("ca audit verify --dir ca4").succeeds();
}
