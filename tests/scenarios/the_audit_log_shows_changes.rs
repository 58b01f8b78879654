//! The audit log tells of everything, and shows that somebody changed it, whoever did it and however.

use serde_json::Value;

use crate::harness::{Done, Home, Postgres, eventually, needs};

#[test]
fn it_tells_what_was_done() {
    let (home, _server, _) = Home::with_serving_authority();
    home.token("--cn laptop");
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    home.enclasp("enroll --token-file token --identity thief").fails(1).says("used already");
    home.enclasp("renew laptop").succeeds();
    home.peer("web", "p256", "server");
    home.enclasp("ca revoke --dir ca laptop --reason superseded").succeeds();
    home.enclasp("renew laptop").fails(1);
    let records = exported(&home);
    let told: Vec<_> = records
        .iter()
        .filter(|record| record["issued_by"] != "server")
        .map(|record| record["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "token made",
            "serving",
            "token made",
            "issued",
            "refused",
            "issued",
            "issued",
            "revoked",
            "revoked",
            "refused"
        ]
    );
    let by: Vec<_> = records.iter().filter_map(|record| record["by"].as_str()).collect();
    assert!(
        by.iter().any(|by| by.starts_with("uid ")) && by.iter().any(|by| by.starts_with("token ")),
        "{by:?}"
    );
    assert!(by.iter().any(|by| by.starts_with("certificate ")), "{by:?}");
    let token = String::from_utf8(home.read("token")).unwrap();
    assert!(!audit(&home, "export").text().contains(token.trim()), "a token is in the log");
    audit(&home, "verify").succeeds();
}

#[test]
fn changes_are_found() {
    if !needs(&["openssl"]) {
        return;
    }
    let Some(postgres) = Postgres::start() else { return };
    let home = Home::new();
    let (url, port) = (postgres.url(), crate::harness::free_port());
    home.enclasp(&format!("ca init --dir ca --name Acme --url https://127.0.0.1:{port} --database {url}"))
        .succeeds();
    let server = home.serve("ca", port);
    for number in 0..4 {
        home.token(&format!("--cn device-{number}"));
    }
    let records = exported(&home).len();
    assert!(records >= 6);
    eventually("where the log ends is signed", || {
        let head = heads(&home);
        head.first().is_some_and(|head| head["position"] == records)
    });
    home.write("head.json", audit(&home, "export").succeeds().stdout);
    // What follows is in no exported head.
    home.token("--cn device-5");
    drop(server);
    audit(&home, "verify --head head.json").succeeds();
    postgres.sql("CREATE TABLE whole AS SELECT * FROM audit; CREATE TABLE whole_chain AS SELECT * FROM audit_chain; CREATE TABLE whole_head AS SELECT * FROM audit_head");
    let restore = "DELETE FROM audit; INSERT INTO audit SELECT * FROM whole; \
                   DELETE FROM audit_chain; INSERT INTO audit_chain SELECT * FROM whole_chain; \
                   DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM whole_head";
    let last = records + 1;
    let swapped = "CREATE TEMP TABLE a AS SELECT * FROM audit WHERE position IN (2, 3); \
                   UPDATE audit SET event = a.event, hash = a.hash FROM a WHERE audit.position = 5 - a.position";
    for (change, found) in [
        ("UPDATE audit SET event = replace(event, 'device-1', 'device-9')".to_owned(), "was changed"),
        ("DELETE FROM audit WHERE position = 3".to_owned(), "was removed"),
        (swapped.to_owned(), "put elsewhere"),
        (format!("DELETE FROM audit WHERE position = {last}"), "cut off"),
        // With its noted end, down to before the exported head.
        (
            format!(
                "DELETE FROM audit WHERE position >= {records}; DELETE FROM audit_head; \
                 UPDATE audit_chain SET position = audit.position, hash = audit.hash FROM audit \
                 WHERE audit.position = {}",
                records - 1
            ),
            "cut off",
        ),
        ("DELETE FROM audit; DELETE FROM audit_chain; DELETE FROM audit_head".to_owned(), "is gone"),
        (rewritten(), "written anew"),
    ] {
        postgres.sql(&change);
        let said = audit(&home, "verify --head head.json").fails(1);
        assert!(said.stderr.contains(found), "{change}: {said}");
        postgres.sql(restore);
        audit(&home, "verify --head head.json").succeeds();
    }
    // A chain that was written anew as a whole holds together: only the exported head shows it.
    postgres.sql(&rewritten());
    audit(&home, "verify").succeeds();
    let head = String::from_utf8(home.read("head.json")).unwrap();
    let forged = head.replace(&format!("\"position\":{records},\"scheme\""), "\"position\":1,\"scheme\"");
    assert_ne!(head, forged);
    home.write("forged.json", forged);
    audit(&home, "verify --head forged.json").fails(1).says("the signature of a head is wrong");
}

/// All hashes are made again over changed records, as whoever knows how can do.
fn rewritten() -> String {
    "DO $$ DECLARE r RECORD; h BYTEA := decode(repeat('00', 32), 'hex'); BEGIN
       DELETE FROM audit_head;
       FOR r IN SELECT * FROM audit ORDER BY position LOOP
         r.event := replace(r.event, 'device-1', 'device-9');
         h := sha256(h || int8send(r.position) || convert_to(r.chain, 'UTF8') || '\\x00'::bytea || convert_to(r.event, 'UTF8'));
         UPDATE audit SET event = r.event, hash = h WHERE chain = r.chain AND position = r.position;
       END LOOP;
       UPDATE audit_chain SET hash = h;
     END $$"
    .to_owned()
}

fn audit(home: &Home, verb: &str) -> Done {
    let (verb, rest) = verb.split_once(' ').unwrap_or((verb, ""));
    home.enclasp(&format!("ca audit {verb} --dir ca {rest}"))
}

fn lines(home: &Home) -> Vec<Value> {
    let exported = audit(home, "export").succeeds().text();
    exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exported(home: &Home) -> Vec<Value> {
    lines(home)
        .into_iter()
        .filter(|line| line["record"].is_object())
        .map(|line| line["record"].clone())
        .collect()
}

fn heads(home: &Home) -> Vec<Value> {
    lines(home).into_iter().filter(|line| line["head"].is_object()).map(|line| line["head"].clone()).collect()
}
