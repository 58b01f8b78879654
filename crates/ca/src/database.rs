//! Where a database is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The URL of a PostgreSQL database: `postgres://USER@HOST:PORT/NAME`, with `?sslmode=verify-full` and
/// `?sslrootcert=FILE` for TLS, and `?host=/FOLDER` for a Unix socket. What it leaves out comes from the variables
/// that PostgreSQL's own programs read (`PGPASSWORD`, `PGSSLMODE` and so on) and from `~/.pgpass`.
/// Shown without its password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, with a password if it has one.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.without_password().0 != self.0
    }

    /// The same database without a password.
    #[must_use]
    pub fn without_password(&self) -> Self {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", &self.0));
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let (host, path) = match authority.find('/') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        };
        let host = match host.rsplit_once('@') {
            Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
            None => host.to_owned(),
        };
        let mut url = format!("{scheme}://{host}{path}");
        let kept = query.into_iter().flat_map(|query| query.split('&'));
        let kept: Vec<_> = kept.filter(|pair| !pair.starts_with("password=")).collect();
        if !kept.is_empty() {
            url.push('?');
            url.push_str(&kept.join("&"));
        }
        Self(url)
    }
}

impl FromStr for DatabaseUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let url = Self(text.to_owned());
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(url)
        } else {
            Err(Error::Setting {
                what: "the database",
                value: format!("`{url}`"),
                reason: "it is postgres://USER@HOST/NAME".into(),
            })
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_password().0)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DatabaseUrl> for String {
    fn from(url: DatabaseUrl) -> Self {
        url.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_noticed_and_never_shown() {
        for (url, shown) in [
            ("postgres://ca:secret@db:5432/ca", "postgres://ca@db:5432/ca"),
            ("postgres://ca:s@c:ret@db/ca?sslmode=require", "postgres://ca@db/ca?sslmode=require"),
            ("postgresql://db/ca?password=secret&host=/run", "postgresql://db/ca?host=/run"),
            ("postgres://ca:secret@db", "postgres://ca@db"),
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            assert!(parsed.has_password(), "{url}");
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("ret"));
            assert!(!shown.parse::<DatabaseUrl>().unwrap().has_password(), "{shown}");
        }
        let error = "mysql://ca:secret@db".parse::<DatabaseUrl>().unwrap_err().to_string();
        assert!(error.contains("postgres://") && !error.contains("secret"), "{error}");
    }
}
