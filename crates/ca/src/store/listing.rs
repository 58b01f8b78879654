//! What the console lists: certificates by state and text, in pages, and how many there are.

use std::time::SystemTime;

use sqlx::AssertSqlSafe;

use super::certificates::{columns, record};
use super::{Store, column, literally, micros, seconds, to_json};
use crate::{Error, Record, Result};

/// How many days the chart of issuance shows.
pub(crate) const DAYS: usize = 30;

/// A day in microseconds.
const DAY: i64 = 86_400_000_000;

/// More are not counted one by one.
pub(crate) const MANY: i64 = 1000;

/// What has become of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Valid,
    /// Valid, with less than a fifth of its life left: a client that renews by itself has done so by then.
    Expiring,
    Expired,
    Revoked,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Valid, Self::Expiring, Self::Expired, Self::Revoked];

    pub(crate) fn of(record: &Record, now: SystemTime) -> Self {
        let (now, begin, end) = (seconds(now), seconds(record.not_before), seconds(record.not_after));
        match &record.revoked {
            Some(_) => Self::Revoked,
            None if end < now => Self::Expired,
            None if (end - now).saturating_mul(5) < end - begin => Self::Expiring,
            None => Self::Valid,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// The certificates in this state; `$1` is the time in seconds.
    fn condition(self) -> &'static str {
        match self {
            Self::Valid => "revoked_at IS NULL AND not_after >= $1",
            Self::Expiring => {
                "revoked_at IS NULL AND not_after >= $1 AND (not_after - $1) * 5 < not_after - not_before"
            }
            Self::Expired => "revoked_at IS NULL AND not_after < $1",
            Self::Revoked => "revoked_at IS NOT NULL AND $1 = $1",
        }
    }
}

/// Which certificates to list.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// In the subject, an alternative name or the serial number, in whatever case; empty for all.
    pub(crate) text: String,
    pub(crate) profile: Option<String>,
    pub(crate) state: Option<State>,
    /// Whether those are listed, too, that a later certificate of the same subject and profile has replaced.
    pub(crate) replaced: bool,
    pub(crate) now: SystemTime,
}

/// Where a page of a list ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What it is ordered by: the end in seconds, or the issuance in microseconds.
    pub(crate) at: i64,
    pub(crate) serial: String,
}

/// What stands for one of `$1`, `$2` and so on.
enum Value {
    Number(i64),
    Text(String),
}

impl Search {
    /// What the list is ordered by, and which way.
    fn order(&self) -> (&'static str, &'static str) {
        match self.state {
            Some(State::Expiring) => ("not_after", "ASC"),
            Some(State::Expired) => ("not_after", "DESC"),
            Some(State::Valid | State::Revoked) | None => ("issued_at", "DESC"),
        }
    }

    /// The place of a record in the list.
    pub(crate) fn place_of(&self, record: &Record) -> Place {
        let by_end = self.order().0 == "not_after";
        let at = if by_end { seconds(record.not_after) } else { micros(record.issued_at) };
        Place { at, serial: record.serial.clone() }
    }

    /// The conditions, and the values in them.
    fn conditions(&self) -> Result<(Vec<String>, Vec<Value>)> {
        let mut conditions = Vec::new();
        let mut values = vec![Value::Number(seconds(self.now))];
        conditions.push(self.state.map_or("$1 = $1", State::condition).to_owned());
        if let Some(profile) = &self.profile {
            values.push(Value::Text(profile.clone()));
            conditions.push(format!("profile = ${}", values.len()));
        }
        if !self.text.is_empty() {
            values.push(Value::Text(format!("%{}%", literally(&self.text))));
            let subject = values.len();
            // As it stands in JSON, without the quotes around it.
            let json = to_json(&self.text)?;
            let json = json.get(1..json.len() - 1).unwrap_or_default();
            values.push(Value::Text(format!("%{}%", literally(json))));
            let names = values.len();
            values.push(Value::Text(literally(&self.text.replace(':', "").to_lowercase()) + "%"));
            let serial = values.len();
            conditions.push(format!(
                "(LOWER(subject) LIKE LOWER(${subject}) ESCAPE '\\' \
                 OR LOWER(subject_alt_names) LIKE LOWER(${names}) ESCAPE '\\' \
                 OR serial LIKE ${serial} ESCAPE '\\')"
            ));
        }
        // Of what is revoked, everything is told.
        if !self.replaced && self.state != Some(State::Revoked) {
            conditions.push(
                "NOT EXISTS (SELECT 1 FROM certificate AS later \
                 WHERE later.subject COLLATE BINARY = certificate.subject AND later.profile = certificate.profile \
                 AND later.revoked_at IS NULL AND later.issued_by <> 'bisect' \
                 AND (later.issued_at, later.serial) > (certificate.issued_at, certificate.serial))"
                    .to_owned(),
            );
        }
        Ok((conditions, values))
    }
}

impl Store {
    /// The first `limit` certificates of a search that follow on `after`. The latest come first; of those that
    /// expire, what ends first, and of the expired, what ended last.
    pub(crate) async fn search(
        &self,
        search: &Search,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let (mut conditions, mut values) = search.conditions()?;
        let (key, order) = search.order();
        let beyond = if order == "ASC" { ">" } else { "<" };
        if let Some(place) = after {
            values.push(Value::Number(place.at));
            values.push(Value::Text(place.serial.clone()));
            let count = values.len();
            conditions.push(format!("({key}, serial) {beyond} (${}, ${count})", count - 1));
        }
        values.push(Value::Number(i64::try_from(limit).unwrap_or(i64::MAX)));
        let sql = format!(
            "SELECT {} FROM certificate WHERE {} ORDER BY {key} {order}, serial {order} LIMIT ${}",
            columns!(),
            conditions.join(" AND "),
            values.len()
        );
        bound(self.dialect.spelled(&sql), values)
            .fetch_all(&self.read)
            .await
            .map_err(|e| Error::database("search certificates", e))?
            .iter()
            .map(record)
            .collect()
    }

    /// How many a search finds, up to [`MANY`] and one.
    pub(crate) async fn count_found(&self, search: &Search) -> Result<i64> {
        let (conditions, values) = search.conditions()?;
        let (conditions, (key, order), limit) = (conditions.join(" AND "), search.order(), MANY + 1);
        // In the order of the list, in which what is looked for comes early.
        let sql = format!(
            "SELECT COUNT(*) AS found FROM (SELECT serial FROM certificate WHERE {conditions} \
             ORDER BY {key} {order}, serial {order} LIMIT {limit}) AS few"
        );
        let row = bound(self.dialect.spelled(&sql), values).fetch_one(&self.read).await;
        column(&row.map_err(|e| Error::database("count certificates", e))?, "found")
    }

    /// How many certificates were issued on each of the last [`DAYS`] days, in UTC, the day of `now` last.
    pub(crate) async fn issued_by_day(&self, now: SystemTime) -> Result<Vec<u64>> {
        let today = micros(now) / DAY;
        let first = today - (DAYS as i64 - 1);
        let rows = sqlx::query(
            "SELECT issued_at / 86400000000 AS day, COUNT(*) AS issued FROM certificate
             WHERE issued_at >= $1 GROUP BY issued_at / 86400000000",
        )
        .bind(first * DAY)
        .fetch_all(&self.read)
        .await
        .map_err(|e| Error::database("count certificates", e))?;
        let mut days = vec![0; DAYS];
        for row in &rows {
            let (day, issued): (i64, i64) = (column(row, "day")?, column(row, "issued")?);
            if let Some(count) = usize::try_from(day - first).ok().and_then(|day| days.get_mut(day)) {
                *count = issued.unsigned_abs();
            }
        }
        Ok(days)
    }
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

fn bound(sql: String, values: Vec<Value>) -> Query {
    let query = sqlx::query(AssertSqlSafe(sql));
    values.into_iter().fold(query, |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
    })
}
