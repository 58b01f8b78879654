//! In the console an admin revokes, approves, denies and makes tokens. What comes from another page, without its
//! form's token or from a viewer changes nothing; and the audit log says who did what.

use crate::harness::{Console, Home, free_ports, needs};

/// An authority with a profile whose certificates take a person's approval.
fn guarded() -> (Home, Console) {
    let home = Home::new();
    let port = free_ports(1);
    home.authority("ca", port);
    let settings = String::from_utf8(home.read("ca/authority.toml")).unwrap();
    let guarded = "\n[profiles.guarded]\ndefault-lifetime = \"1d\"\nmax-lifetime = \"1d\"\n\
                   extended-key-usages = [\"clientAuth\"]\napproval = true\n";
    home.write("ca/authority.toml", settings + guarded);
    let console = home.serve_console(port);
    (home, console)
}

#[test]
fn revocation() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, console) = Home::with_console();
    for (name, profile) in [("alice", "admin"), ("carol", "admin"), ("bob", "viewer"), ("web", "client")] {
        home.operator(name, profile);
    }
    let serial = |name: &str| {
        let one = home.issued().into_iter().find(|one| one["subject"] == format!("CN={name}"));
        one.expect("it was issued")["serial"].as_str().unwrap().to_owned()
    };
    let path = format!("/certificates/{}/revoke", serial("web"));
    let fields = [("which", "this"), ("reason", "keyCompromise")];
    let token = |name: &str| console.get(&home, name, &path, &[]).is(200).form_token();
    let (own, carols) = (token("alice"), token("carol"));
    assert_ne!(own, carols);
    let with = |token: &str| {
        [fields[0], fields[1], ("form-token", token)].map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let post = |name: &str, token: &str, origin: &str| {
        let fields = with(token);
        let fields: Vec<_> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        console.post_as(&home, name, &path, &fields, origin)
    };
    // Somebody else's page makes the browser send this: it has no token, and says where it comes from.
    for origin in ["https://evil.example", "null", "http://localhost", "https://localhost:1", ""] {
        post("alice", &own, origin).is(403).shows("came from another");
    }
    for token in ["", "00", carols.as_str()] {
        post("alice", token, &console.origin()).is(403).shows("load the page again");
    }
    console.post_as(&home, "alice", &path, &fields, &console.origin()).is(403).shows("load the page again");
    let form = format!("which=this&reason=keyCompromise&form-token={own}");
    let origin = format!("Origin: {}", console.origin());
    let sent = |more: &[&str]| console.get(&home, "alice", &path, &[&["-H", &origin], more].concat());
    sent(&["-d", &form, "-H", "Sec-Fetch-Site: cross-site"]).is(403);
    sent(&["-d", &form, "-H", "Content-Type: text/plain"]).is(415);
    sent(&["-d", "form-token=&reason=x"]).is(422);
    home.write("large", format!("{form}&x={}", "x".repeat(70_000)));
    sent(&["-d", "@large"]).is(413);
    console.get(&home, "bob", &path, &[]).is(403);
    post("bob", &own, &console.origin()).is(403).shows("changes nothing");
    assert!(home.issued().iter().all(|one| one["revoked"].is_null()), "nothing was revoked");

    let done = post("alice", &own, &console.origin()).is(303);
    assert!(
        done.head.contains(&format!("location: /certificates/{}?done=revoked", serial("web"))),
        "{done:?}"
    );
    console
        .get(&home, "bob", &format!("/certificates/{}", serial("web")), &[])
        .is(200)
        .shows("keyCompromise");
    post("alice", &own, &console.origin()).is(409).shows("revoked already");
    let log = home.enclasp("ca audit export --dir ca").succeeds().text();
    let refused = log.lines().find(|line| line.contains("changes nothing")).expect("it is in the log");
    assert!(refused.contains("CN=bob\""), "{refused}");
    let by = format!("\"by\":\"certificate {}, CN=alice\"", serial("alice"));
    let line = log.lines().find(|line| line.contains("\"event\":\"revoked\"")).expect("it is in the log");
    assert!(line.contains(&by) && line.contains("keyCompromise"), "{line}");
    home.enclasp("ca audit verify --dir ca").succeeds();

    // All of a name at once, and whoever revokes himself is out.
    home.operator("carol", "admin");
    let path = format!("/certificates/{}/revoke", serial("carol"));
    console.get(&home, "alice", &path, &[]).is(200);
    let done = console.post(&home, "alice", &path, &[("which", "all"), ("reason", "superseded")]);
    done.is(303);
    let carols: Vec<_> = home.issued().into_iter().filter(|one| one["subject"] == "CN=carol").collect();
    assert_eq!(carols.len(), 2);
    assert!(carols.iter().all(|one| one["revocation_reason"] == "superseded"), "{carols:?}");
    let path = format!("/certificates/{}/revoke", serial("alice"));
    console.get(&home, "alice", &path, &[]).is(200).shows("you lock yourself out");
    console.post(&home, "alice", &path, &[("which", "this"), ("reason", "unspecified")]).is(303);
    console.get(&home, "alice", "/", &[]).is(403).shows("was revoked");
}

#[test]
fn tokens() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, console) = Home::with_console();
    home.operator("alice", "admin");
    let post = |names: &str, lifetime: &str, confirmed: &str| {
        let mut fields = vec![
            ("common_name", "laptop-17"),
            ("names", names),
            ("profile", "client"),
            ("lifetime", lifetime),
        ];
        if !confirmed.is_empty() {
            fields.push(("confirmed", confirmed));
        }
        console.post(&home, "alice", "/tokens/new", &fields)
    };
    // What was typed stays.
    for (names, lifetime, reason) in [
        ("host:laptop", "10m", "host:laptop"),
        ("dns:laptop.example", "10 minutes", "is not a duration"),
        ("dns:laptop.example", "91d", "between 1s and 90d"),
        ("permanentIdentifier:1", "10m", "does not allow"),
    ] {
        let page =
            post(names, lifetime, "yes").is(400).shows("something in the form is not right").shows(reason);
        for typed in ["value=\"laptop-17\"", names, &format!("value=\"{lifetime}\"")] {
            assert!(page.body.contains(typed), "{typed}: {page:?}");
        }
    }
    let before = home.enclasp("ca audit export --dir ca").succeeds().text().matches("token made").count();
    post("dns:laptop.example\nuri:spiffe://acme/17", "10m", "").is(200).shows("Make this token?");
    let page = post("dns:laptop.example\r\nuri:spiffe://acme/17", "10m", "yes").is(200).shows("enclasp1_");
    let log = home.enclasp("ca audit export --dir ca").succeeds().text();
    assert_eq!(log.matches("token made").count(), before + 1);
    let token = page.body.split("enclasp1_").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    assert!(!log.contains(token), "the log holds no token");
    home.write("token", format!("enclasp1_{token}\n"));
    home.enclasp("enroll --token-file token --identity laptop").succeeds();
    let last = home.issued().pop().unwrap();
    assert_eq!(last["subject_alt_names"], serde_json::json!(["dns:laptop.example", "uri:spiffe://acme/17"]));
}

#[test]
fn approval() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, console) = guarded();
    home.operator("alice", "admin");
    home.operator("bob", "viewer");
    let waiting = || {
        let waiting = home.enclasp("ca pending --dir ca --json").succeeds().json();
        waiting
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    home.token("--cn web --profile guarded");
    home.enclasp("enroll --token-file token --identity web").fails(1).says("HTTP 202");
    let id = waiting().remove(0);
    let page = console.get(&home, "bob", "/waiting", &[]).is(200).shows("CN=web");
    assert!(!page.body.contains("/approve"), "a viewer decides nothing: {page:?}");
    console.get(&home, "alice", "/waiting", &[]).is(200).shows(&format!("/waiting/{id}/approve"));
    let approve = format!("/waiting/{id}/approve");
    console.get(&home, "bob", &approve, &[]).is(403);
    console.post_as(&home, "alice", &approve, &[("form-token", "")], &console.origin()).is(403);
    assert_eq!(waiting().len(), 1);
    console.post(&home, "alice", &approve, &[]).is(303);
    home.enclasp("enroll --token-file token --identity web").succeeds();
    console.get(&home, "alice", &approve, &[]).is(404).shows("That does not wait");
    console.get(&home, "alice", &format!("/waiting/{id}/forget"), &[]).is(404);

    home.token("--cn db --profile guarded");
    home.enclasp("enroll --token-file token --identity db").fails(1).says("HTTP 202");
    let id = waiting().remove(0);
    console.post(&home, "alice", &format!("/waiting/{id}/deny"), &[]).is(303);
    home.enclasp("enroll --token-file token --identity db").fails(1).says("a person denied this request");
    let log = home.enclasp("ca audit export --dir ca").succeeds().text();
    for event in ["approved", "denied"] {
        let line =
            log.lines().find(|line| line.contains(&format!("\"event\":\"{event}\""))).expect("a record");
        assert!(line.contains("CN=alice\""), "{line}");
    }
}
