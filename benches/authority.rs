//! Enrolments over EST beside the work that no authority can do without, and what a million certificates change:
//! `cargo bench --bench authority`.
//!
//! CPU time is that of the authority, of the agent with its key, and of the database. The floor, measured in turns with
//! it, is as many requests verified, P-256 signatures made and durable single-row transactions, at the same
//! concurrency, and where each device has a connection of its own, as many server's halves of a TLS handshake.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use enclasp_benches::authority::{Floor, Serving, server_handshake};
use enclasp_benches::measure::{median, micros, own_cpu_time};
use enclasp_benches::process::played_a_role;
use enclasp_benches::report::{Bound, Report, Row, Settings};
use enclasp_ca::{Authority, Filter, TokenRequest};
use enclasp_pki::RevocationReason;
use serde::Serialize;
use sqlx::{AnyPool, Executor};

#[allow(dead_code, reason = "it is for tests, too")]
#[path = "../tests/harness/postgres.rs"]
mod postgres;

use postgres::Postgres;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many devices enrol in one turn, by how many there are at once.
const TURNS: [(usize, usize); 2] = [(1, 150), (64, 1500)];

/// How many certificates there are in the end.
const MANY: usize = 1_000_000;

/// How many of them are revoked.
const REVOKED: usize = 100_000;

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let mut report = Report::new(settings.rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        enrolments(settings.rounds, &mut report).await?;
        growth(settings.rounds, &mut report).await
    })?;
    report.print(settings.json);
    Ok(())
}

#[derive(Serialize)]
struct Enrolments {
    name: String,
    cpu_us: f64,
    floor_us: f64,
    ratio: f64,
    per_second: f64,
}

impl Row for Enrolments {
    const COLUMNS: &'static [&'static str] = &["CPU µs", "floor, CPU µs", "×", "per second"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{:.0}", self.cpu_us),
            format!("{:.0}", self.floor_us),
            format!("{:.2}", self.ratio),
            format!("{:.0}", self.per_second),
        ]
    }
}

async fn enrolments(rounds: usize, report: &mut Report) -> Outcome<()> {
    let postgres = Postgres::start_durable();
    let url = postgres.as_ref().map(Postgres::url);
    let mut databases = vec![("SQLite", None, None)];
    if let (Some(postgres), Some(url)) = (&postgres, &url) {
        databases.push(("PostgreSQL", Some(url.as_str()), postgres.pid()));
    }
    let mut rows = Vec::new();
    for (database, url, pid) in databases {
        let serving = Serving::start(url, pid).await?;
        let floor = Floor::new(url, pid).await?;
        for (at_once, count) in TURNS {
            for keep in [true, false] {
                let (mut spent, mut least, mut rates) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..rounds {
                    let devices = serving.devices(count).await?;
                    let (before, began) = (serving.cpu_time(), Instant::now());
                    devices.enrol(at_once, keep).await?;
                    rates.push(count as f64 / began.elapsed().as_secs_f64());
                    spent.push(micros(serving.cpu_time() - before) / count as f64);
                    let before = floor.cpu_time();
                    floor.run(count, at_once).await?;
                    let handshake = if keep { Duration::ZERO } else { server_handshake()? };
                    least.push(micros(floor.cpu_time() - before) / count as f64 + micros(handshake));
                }
                let ratio = median(spent.iter().zip(&least).map(|(spent, least)| spent / least).collect());
                let connections = if keep { "kept connections" } else { "a connection each" };
                let name = format!("{database}, {at_once} at once, {connections}");
                if at_once > 1 {
                    report.target(
                        format!("CPU of an enrolment beside the floor: {name}"),
                        ratio,
                        Bound::AtMost(2.0),
                    );
                }
                rows.push(Enrolments {
                    name,
                    cpu_us: median(spent),
                    floor_us: median(least),
                    ratio,
                    per_second: median(rates),
                });
            }
        }
    }
    report.table("Enrolments over EST", &rows);
    Ok(())
}

#[derive(Serialize)]
struct Growth {
    name: String,
    before_us: f64,
    after_us: f64,
    ratio: f64,
}

impl Row for Growth {
    const COLUMNS: &'static [&'static str] = &["CPU µs, 1 000 certificates", "CPU µs, 1 000 000", "×"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{:.0}", self.before_us),
            format!("{:.0}", self.after_us),
            format!("{:.2}", self.ratio),
        ]
    }
}

async fn growth(rounds: usize, report: &mut Report) -> Outcome<()> {
    let serving = Serving::start(None, None).await?;
    serving.devices(100).await?.enrol(16, true).await?;
    let records = AnyPool::connect(&format!("sqlite://{}", serving.records().display())).await?;
    fill(&records, 1_000).await?;
    let before = operations(&serving, rounds).await?;
    fill(&records, MANY).await?;
    let after = operations(&serving, rounds).await?;
    let rows: Vec<_> = before
        .into_iter()
        .zip(after)
        .map(|((name, before_us), (_, after_us))| {
            let ratio = after_us / before_us;
            report.target(format!("a million certificates: {name}"), ratio, Bound::AtMost(1.3));
            Growth { name: name.to_owned(), before_us, after_us, ratio }
        })
        .collect();
    report.table("What a million certificates change (SQLite)", &rows);

    let revoke = format!(
        "UPDATE certificate SET revoked_at = issued_at / 1000000, revocation_reason = 1 WHERE serial IN \
         (SELECT serial FROM certificate WHERE profile = 'client' AND revoked_at IS NULL LIMIT {REVOKED})"
    );
    records.execute(sqlx::AssertSqlSafe(revoke)).await?;
    // So that a new CRL is due.
    revoke_one(&serving.authority).await?;
    let began = own_cpu_time();
    let crl = serving.authority.crl(serving.keystore(), None, 0).await?;
    let spent = (own_cpu_time() - began).as_secs_f64();
    report.target(
        format!("seconds of CPU for a CRL of {REVOKED} ({} KiB)", crl.len() / 1024),
        spent,
        Bound::AtMost(1.0),
    );
    Ok(())
}

/// The CPU time of each operation, in microseconds: the medians.
async fn operations(serving: &Serving, rounds: usize) -> Outcome<Vec<(&'static str, f64)>> {
    const TIMES: usize = 200;
    let authority = &serving.authority;
    let (mut enrol, mut token, mut list, mut revoke) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let devices = serving.devices(TIMES).await?;
        let began = serving.cpu_time();
        devices.enrol(16, true).await?;
        enrol.push(micros(serving.cpu_time() - began) / TIMES as f64);

        let began = own_cpu_time();
        for _ in 0..TIMES {
            authority.token(request("other")).await?;
        }
        token.push(micros(own_cpu_time() - began) / TIMES as f64);

        let began = own_cpu_time();
        for _ in 0..TIMES / 10 {
            authority.certificates(&Filter::default(), None, 50).await?;
        }
        list.push(micros(own_cpu_time() - began) / (TIMES / 10) as f64);

        let began = own_cpu_time();
        for _ in 0..TIMES / 10 {
            revoke_one(authority).await?;
        }
        revoke.push(micros(own_cpu_time() - began) / (TIMES / 10) as f64);
    }
    Ok(vec![
        ("an enrolment, 16 at once", median(enrol)),
        ("`ca token`", median(token)),
        ("the first 50 of `ca list`", median(list)),
        ("`ca revoke NAME`", median(revoke)),
    ])
}

fn request(name: &str) -> TokenRequest {
    TokenRequest {
        common_name: name.to_owned(),
        subject_alt_names: Vec::new(),
        profile: "client".into(),
        lifetime: Duration::from_secs(3600),
    }
}

/// Adds records until there are `count`: copies of one, with serial numbers and names of their own.
async fn fill(records: &AnyPool, count: usize) -> Outcome<()> {
    let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM certificate").fetch_one(records).await?;
    let insert = format!(
        "INSERT INTO certificate (serial, issuer, shard, subject, subject_alt_names, profile, issued_by, issued_at, \
             not_before, not_after, der)
         WITH RECURSIVE number(n) AS (SELECT {there} UNION ALL SELECT n + 1 FROM number WHERE n + 1 < {count})
         SELECT lower(hex(randomblob(16))), issuer, 0, 'CN=device-' || n, '[]', 'client', 'token', issued_at + n, \
             not_before, not_after, der
         FROM (SELECT * FROM certificate WHERE profile = 'client' LIMIT 1), number"
    );
    records.execute(sqlx::AssertSqlSafe(insert)).await?;
    Ok(())
}

/// Revokes one of those by its name.
async fn revoke_one(authority: &Authority) -> Outcome<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(200);
    let name = format!("device-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    authority.revoke(&name, RevocationReason::KeyCompromise).await?;
    Ok(())
}
