//! A headless Chromium of its own profile, driven over the DevTools protocol.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::home::Home;
use super::net::eventually;
use super::process::{Running, run};

/// A browser with one page.
pub(crate) struct Browser {
    chromium: Running,
    session: Value,
    /// Of the last message that was sent.
    id: u64,
}

impl Browser {
    /// Starts one that knows the root of the authority in `ca` and the keys and certificates `operators`
    /// (NAME.key, NAME.pem), and shows a server of `url` whichever of them it accepts.
    ///
    /// Chromium reads who is chosen without asking from the machine's policies. This one sees policies of its
    /// own in their place: it runs in a mount namespace, which takes root.
    pub(crate) fn start(home: &Home, operators: &[&str], url: &str) -> Self {
        let nss = home.path(".pki/nssdb");
        fs::create_dir_all(&nss).expect("a folder");
        let nss = format!("sql:{}", nss.display());
        run(home.program("certutil", &format!("-N -d {nss} --empty-password"))).succeeds();
        run(home.program("certutil", &format!("-A -d {nss} -n root -t CT,, -i ca/root.pem"))).succeeds();
        for name in operators {
            home.openssl(&format!(
                "pkcs12 -export -in {name}.pem -inkey {name}.key -name {name} -passout pass:once -out {name}.p12"
            ));
            run(home.program("pk12util", &format!("-i {name}.p12 -d {nss} -W once"))).succeeds();
        }
        let policies = home.path("policies/policies/managed");
        fs::create_dir_all(&policies).expect("a folder");
        // The value is JSON in a string.
        let choice = json!({ "pattern": url, "filter": {} }).to_string();
        let policy = json!({ "AutoSelectCertificateForUrls": [choice] }).to_string();
        fs::write(policies.join("test.json"), policy).expect("a file");
        // The protocol is spoken on file descriptors 3 and 4.
        let script = "mount --bind policies /etc/chromium && exec chromium --headless --no-sandbox --no-first-run \
                      --disable-gpu --disable-dev-shm-usage --disable-background-networking \
                      --disable-component-update --user-data-dir=profile --remote-debugging-pipe about:blank \
                      3<&0 4>&1 0</dev/null 1>/dev/null";
        let mut chromium = home.program("unshare", "-m sh -c");
        chromium.arg(script).env("HOME", home.path(""));
        let mut browser = Self { chromium: Running::start(chromium), session: Value::Null, id: 0 };
        let mut page = Value::Null;
        eventually("there is a page", || {
            let targets = browser.call("Target.getTargets", json!({}));
            let targets = targets["targetInfos"].as_array().cloned().unwrap_or_default();
            page = targets
                .iter()
                .find(|one| one["type"] == "page")
                .map_or(Value::Null, |one| one["targetId"].clone());
            !page.is_null()
        });
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page, "flatten": true }));
        browser.session = attached["sessionId"].clone();
        browser.call("Page.enable", json!({}));
        browser
    }

    /// What a command of the protocol yields.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The answer to a command, which may be an error.
    fn answer(&mut self, method: &str, parameters: Value) -> Value {
        self.id += 1;
        let mut message = json!({ "id": self.id, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.chromium.send(format!("{message}\0").as_bytes());
        let beginning = format!("{{\"id\":{},", self.id);
        let mut answer = String::new();
        eventually(method, || {
            let said = self.chromium.stdout.text();
            // A message is whole when it has its end.
            let mut messages: Vec<_> = said.split('\0').collect();
            messages.pop();
            let ours = messages.into_iter().find(|message| message.starts_with(&beginning));
            answer = ours.unwrap_or_default().to_owned();
            !answer.is_empty() || self.has_ended()
        });
        assert!(!answer.is_empty(), "Chromium ended: {}", self.chromium.stderr.text());
        serde_json::from_str(&answer).expect("JSON")
    }

    fn has_ended(&mut self) -> bool {
        !self.chromium.is_running()
    }

    /// Goes to `url`, and waits until its page is there.
    pub(crate) fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        self.wait_for("true");
    }

    /// What a JavaScript expression is on the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let done = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].clone()
    }

    /// Waits until `condition`, an expression, is true on the page, or on one that follows on it, and that page is
    /// there as a whole.
    pub(crate) fn wait_for(&mut self, condition: &str) {
        let expression = format!("document.readyState == 'complete' && ({condition})");
        eventually(condition, || {
            // Between two pages there is nothing to ask, which is an error.
            let asked = json!({ "expression": expression, "returnByValue": true });
            self.answer("Runtime.evaluate", asked)["result"]["result"]["value"] == true
        });
    }

    /// What a person reads on the page.
    pub(crate) fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Presses a key, once.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            // The page may be gone with the first of the two.
            self.answer("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// The colour scheme that the page shall prefer, and the width of its window.
    pub(crate) fn look(&mut self, scheme: &str, width: u32) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Writes a picture of the whole page to a file.
    pub(crate) fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let png = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        fs::write(file, png).expect("a file");
    }
}
