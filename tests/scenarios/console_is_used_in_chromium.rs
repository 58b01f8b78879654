//! A person uses the console in Chromium, with the keyboard alone, on a wide and on a narrow screen, in light and dark; a
//! page of somebody else makes Chromium send a change, which is refused.
//!
//! With `ENCLASP_PICTURES=FOLDER` it leaves pictures of the pages there.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Browser, Home, is_root, needs};

#[test]
fn console_is_used_in_chromium() {
    if !is_root() || !needs(&["openssl", "chromium", "certutil", "pk12util", "unshare"]) {
        return;
    }
    let (home, console) = Home::with_console();
    home.operator("alice", "admin");
    for name in ["db.internal", "laptop-17", "laptop-18"] {
        home.operator(name, "client");
    }
    home.enclasp("ca revoke --dir ca laptop-18 --reason superseded").succeeds();
    let site = console.origin();
    let mut browser = Browser::start(&home, &["alice"], &site);
    browser.open(&site);
    let text = browser.text();
    assert!(text.contains("Certificates issued a day") && text.contains("CN=alice"), "{text}");
    assert_eq!(browser.evaluate("document.styleSheets[0].cssRules.length > 9"), true, "the style is let in");

    // By keyboard: past the navigation, and through a form with a mistake in it.
    browser.press("Tab", 9);
    assert_eq!(browser.evaluate("document.activeElement.textContent"), "Skip to the content");
    browser.press("Enter", 13);
    browser.wait_for("document.activeElement.id == 'content'");
    browser.open(&format!("{site}/tokens/new"));
    browser.evaluate("document.getElementById('common_name').focus()");
    browser.type_text("printer-3");
    browser.press("Tab", 9);
    browser.type_text("host:printer-3");
    for _ in 0..2 {
        browser.press("Tab", 9);
    }
    browser.press("Enter", 13);
    browser.wait_for("document.querySelector('[role=alert]') != null");
    assert_eq!(browser.evaluate("document.querySelector('[aria-invalid]').value"), "host:printer-3");
    browser.wait_for("document.activeElement == document.querySelector('[aria-invalid]')");
    look_around(&mut browser, "mistake");
    browser.evaluate("document.getElementById('names').value = 'dns:printer-3'");
    browser.evaluate("document.getElementById('lifetime').focus()");
    browser.press("Enter", 13);
    browser.wait_for("document.querySelector('h1')?.textContent == 'Make this token?'");
    look_around(&mut browser, "confirmation");
    browser.evaluate("document.querySelector('button').focus()");
    browser.press("Enter", 13);
    browser.wait_for("document.querySelector('.secret') != null");
    let token = browser.evaluate("document.querySelector('.secret').textContent");
    home.write("token", token.as_str().unwrap());
    home.enclasp("enroll --token-file token --identity printer").succeeds();

    // From the list to a certificate, and to its revocation.
    browser.open(&format!("{site}/devices?text=laptop-17"));
    browser.evaluate("document.querySelector('tbody a').click()");
    browser.wait_for("document.querySelector('.danger') != null");
    look_around(&mut browser, "certificate");
    browser.evaluate("document.querySelector('.danger').click()");
    browser.wait_for("document.getElementById('reason') != null");
    look_around(&mut browser, "revocation");
    browser.evaluate("document.getElementById('reason').value = 'keyCompromise'");
    browser.evaluate("document.querySelector('button').click()");
    browser.wait_for("document.querySelector('.done') != null");
    assert!(browser.text().contains("keyCompromise"));

    for (path, name) in [
        ("/", "overview"),
        ("/devices", "devices"),
        ("/devices?state=expiring", "empty"),
        ("/waiting", "waiting"),
        ("/tokens/new", "token"),
        ("/audit", "audit"),
        ("/nothing", "nothing"),
    ] {
        browser.open(&format!("{site}{path}"));
        look_around(&mut browser, name);
    }

    // A page of somebody else sends a form with all that it can know.
    let before = home.issued();
    let victim = before.iter().find(|one| one["subject"] == "CN=db.internal").unwrap()["serial"].clone();
    let action = format!("{site}/certificates/{}/revoke", victim.as_str().unwrap());
    let page = format!(
        "data:text/html,<form method=post action={action}><input name=which value=this>\
         <input name=reason value=unspecified><input name=form-token value=00></form>"
    );
    browser.open(&page);
    browser.evaluate("document.forms[0].submit()");
    browser.wait_for("document.querySelector('h1')?.textContent == 'Not allowed'");
    assert!(browser.text().contains("this request came from another"));
    assert_eq!(home.issued(), before);

    // Whoever is revoked is out, with the connection that is open.
    home.enclasp("ca revoke --dir ca alice").succeeds();
    browser.open(&site);
    assert!(browser.text().contains("Your certificate was revoked"));
}

/// What holds for every page, however it is looked at.
fn look_around(browser: &mut Browser, name: &str) {
    let pictures = std::env::var_os("ENCLASP_PICTURES").map(PathBuf::from);
    let mut grounds = Vec::new();
    for (scheme, width) in [("light", 1200), ("dark", 1200), ("light", 360)] {
        browser.look(scheme, width);
        let overflow =
            browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert!(
            overflow.as_i64().is_some_and(|pixels| pixels <= 0),
            "{name} is too wide for {width}: {overflow}"
        );
        grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor"));
        if let Some(folder) = &pictures {
            browser.picture(&folder.join(format!("{name}-{scheme}-{width}.png")));
        }
    }
    assert_ne!(grounds[0], grounds[1], "{name} has a dark form");
    browser.look("light", 1200);
    for (what, expression) in [
        ("one heading of the first level", "document.querySelectorAll('h1').length == 1"),
        ("a language", "document.documentElement.lang == 'en'"),
        ("a title", "document.title.length > 0"),
        ("a way past the navigation", "document.querySelector('a[href=\"#content\"]') != null"),
        ("a caption of each list", "[...document.querySelectorAll('main > table')].every(t => t.caption)"),
        (
            "a label of each field",
            "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')].every(f => f.labels.length == 1)",
        ),
        ("no script", "document.querySelector('script, [onclick], [style], style') == null"),
    ] {
        assert_eq!(browser.evaluate(expression), Value::Bool(true), "{name} has {what}");
    }
}
