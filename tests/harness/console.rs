//! The console of an authority, as curl sees it.

use super::home::Home;
use super::ports::free_ports;
use super::process::{Running, run};

/// A served console. The authority is in the folder `ca` of its home.
pub(crate) struct Console {
    _server: Running,
    /// Of its TLS listener.
    pub(crate) port: u16,
    /// Of EST.
    pub(crate) est_port: u16,
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head with its status line, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Home {
    /// An authority with its console.
    pub(crate) fn with_console() -> (Self, Console) {
        let home = Self::new();
        let port = free_ports(1);
        home.authority("ca", port);
        let console = home.serve_console(port);
        (home, console)
    }

    /// Serves the authority in `ca`, whose URL has that port, with its console.
    pub(crate) fn serve_console(&self, est_port: u16) -> Console {
        let server =
            self.start(&format!("ca serve --dir ca --listen 127.0.0.1:{est_port} --console 127.0.0.1:0"));
        let said = server.stderr.wait_for("console on ");
        let port = said.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
        Console { _server: server, port: port.unwrap_or_else(|| panic!("no port in `{said}`")), est_port }
    }

    /// A key that OpenSSL makes, and a certificate of our authority under `profile`: NAME.key, NAME.pem.
    pub(crate) fn operator(&self, name: &str, profile: &str) {
        self.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
        self.openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        self.enclasp(&format!("ca sign --dir ca {name}.csr --profile {profile} --out {name}.pem")).succeeds();
    }
}

impl Console {
    /// What curl gets of the page at `path` with NAME.pem and `more` arguments.
    pub(crate) fn get(&self, home: &Home, name: &str, path: &str, more: &[&str]) -> Answer {
        let mut arguments = vec!["--cert", "", "--key", ""];
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        (arguments[1], arguments[3]) = (&certificate, &key);
        arguments.extend(more);
        self.anonymous(home, path, &arguments)
    }

    /// The same without a certificate.
    pub(crate) fn anonymous(&self, home: &Home, path: &str, more: &[&str]) -> Answer {
        let mut curl = home.program("curl", "-sS -i --cacert ca/root.pem");
        curl.args(more).arg(format!("https://localhost:{}{path}", self.port));
        Answer::parse(&run(curl).succeeds().text())
    }

    /// The answer to a form with these fields, sent from its own page with its token.
    pub(crate) fn post(&self, home: &Home, name: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.get(home, name, path, &[]).form_token();
        let mut fields = fields.to_vec();
        fields.push(("form-token", &token));
        self.post_as(home, name, path, &fields, &self.origin())
    }

    /// The same with these fields alone, from a page of `origin`.
    pub(crate) fn post_as(
        &self,
        home: &Home,
        name: &str,
        path: &str,
        fields: &[(&str, &str)],
        origin: &str,
    ) -> Answer {
        let origin = format!("Origin: {origin}");
        let fields: Vec<_> = fields.iter().map(|(field, value)| format!("{field}={value}")).collect();
        let mut arguments = vec!["-H", origin.as_str()];
        for field in &fields {
            arguments.extend(["--data-urlencode", field]);
        }
        self.get(home, name, path, &arguments)
    }

    /// Where its own pages come from.
    pub(crate) fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Answer {
    fn parse(text: &str) -> Self {
        // Of a request with a body there may be a `100 Continue` before it.
        let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no status: {head}")),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// With that status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// In its body.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.body.contains(text), "it does not show `{text}`: {self:?}");
        self
    }

    /// The token of the form in it.
    #[track_caller]
    pub(crate) fn form_token(&self) -> String {
        let after = self.body.split("name=\"form-token\" value=\"").nth(1);
        let token = after.and_then(|rest| rest.split('"').next());
        token.unwrap_or_else(|| panic!("no form: {self:?}")).to_owned()
    }

    /// Where the link with that text leads.
    #[track_caller]
    pub(crate) fn link(&self, text: &str) -> String {
        let before = self.body.split(&format!(">{text}</a>")).next().filter(|before| *before != self.body);
        let href = before.and_then(|before| before.rsplit("href=\"").next()?.split('"').next());
        href.unwrap_or_else(|| panic!("no link `{text}`: {self:?}")).replace("&amp;", "&")
    }
}
