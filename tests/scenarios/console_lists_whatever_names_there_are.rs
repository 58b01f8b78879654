//! The console's lists are searched, filtered and gone through page by page, and names with markup in them are shown
//! as they are.

use crate::harness::{Home, needs, run};

/// 120 certificates more, like the one of `web`, as if each had been issued a second after the other.
const MANY: &str = r#"
import sqlite3
db = sqlite3.connect("ca/authority.db", timeout=30)
columns = "issuer, shard, subject_alt_names, profile, issued_by, not_before, not_after, der"
(issued_at,) = db.execute("SELECT MAX(issued_at) FROM certificate").fetchone()
for n in range(120):
    db.execute(
        f"INSERT INTO certificate (serial, subject, issued_at, {columns})"
        f" SELECT ?, ?, ?, {columns} FROM certificate WHERE subject = 'CN=web'",
        (f"{n:032x}", f"CN=device-{n:03}", issued_at + (n + 1) * 1000000),
    )
db.commit()
"#;

#[test]
fn console_lists_whatever_names_there_are() {
    if !needs(&["openssl", "curl", "python3"]) {
        return;
    }
    let (home, console) = Home::with_console();
    home.operator("alice", "admin");
    home.operator("web", "client");
    let mut fill = home.program("python3", "-c");
    fill.arg(MANY);
    run(fill).succeeds();
    let get = |path: &str| console.get(&home, "alice", path, &[]);

    // Page by page, each device once, the latest first.
    let (mut path, mut seen) = ("/devices?profile=client".to_owned(), Vec::new());
    loop {
        let page = get(&path).is(200);
        let rows = page.body.split("<th scope=\"row\"").skip(1);
        seen.extend(rows.map(|row| row.split("CN=").nth(1).unwrap().split('<').next().unwrap().to_owned()));
        if !page.body.contains(">Next page</a>") {
            break;
        }
        path = page.link("Next page");
    }
    let mut expected: Vec<_> = (0..120).rev().map(|n| format!("device-{n:03}")).collect();
    expected.push("web".into());
    assert_eq!(seen, expected);

    // Search by name in whatever case, by serial number, by state; a certificate that was replaced is left out.
    let found = |query: &str, yes: &[&str], no: &[&str]| {
        let page = get(&format!("/devices?{query}")).is(200);
        for (names, is_there) in [(yes, true), (no, false)] {
            for name in names {
                assert_eq!(page.body.contains(&format!("CN={name}<")), is_there, "{query}, {name}: {page:?}");
            }
        }
    };
    found("text=DEVICE-07", &["device-070", "device-079"], &["device-080", "web"]);
    found("text=%25", &[], &["device-001", "web"]);
    found("text=00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:1F", &["device-031"], &["device-001", "web"]);
    found("state=revoked", &[], &["web", "device-001"]);
    home.enclasp("ca revoke --dir ca device-007").succeeds();
    found("state=revoked", &["device-007"], &["web", "device-001"]);
    found("state=valid&text=device-00", &["device-001"], &["device-007", "web"]);
    found("state=expiring", &[], &["web", "device-001"]);
    home.enclasp("ca sign --dir ca web.csr --profile client --out web.pem").succeeds();
    let rows = |query: &str| get(query).is(200).body.matches(">CN=web<").count();
    assert_eq!((rows("/devices?text=web"), rows("/devices?text=web&replaced=1")), (1, 2));
    get("/devices?text=nobody").is(200).shows("Nothing fits this search.");
    get("/devices?at=tomorrow").is(400);

    // Names are what others chose.
    let name = "<script>alert(1)</script>&\"'<!--";
    home.token(&format!("--cn {name}"));
    home.enclasp("enroll --token-file token --identity evil").succeeds();
    let list = get("/devices?text=alert").is(200).shows("&lt;script");
    let serial = list.body.split("/certificates/").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    for path in [
        "/devices?text=alert".to_owned(),
        format!("/certificates/{serial}"),
        format!("/certificates/{serial}/revoke"),
        "/audit".to_owned(),
        "/devices?text=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        "/audit?text=%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
    ] {
        let page = get(&path).is(200).shows("&lt;script");
        for raw in ["<script", "<!--", "alert(1)</script>"] {
            assert!(!page.body.contains(raw), "{path}: {page:?}");
        }
    }

    // The audit log by page and by text.
    let page = get("/audit").is(200);
    assert!(page.body.contains(">token made<"), "{page:?}");
    get("/audit?text=TOKEN%20MADE").is(200).shows("token made");
    get("/audit?before=1").is(200).shows("There is no such record.");
    let first = get("/audit?before=3").is(200);
    assert_eq!(first.body.matches("<th scope=\"row\"").count(), 2, "{first:?}");
}
