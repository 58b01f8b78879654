//! The tunnel beside other TLS proxies, on one machine under one load:
//! `cargo bench -p enclasp-benches --bench tunnel -- [--json] [--rounds N] [--svg FILE] [--idle N] [--only NAME]`.
//!
//! Load, service and proxies are processes of their own; what is compared is the CPU time of the
//! proxy, with its workers and its agent, what a client waits for, and memory. `ENCLASP` names the
//! program to measure if it is not to be built; `GHOSTUNNEL` that of ghostunnel, if there is one.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use enclasp_benches::chart::{Panel, draw};
use enclasp_benches::load::{Clients, Echo, Kind};
use enclasp_benches::measure::{median, micros, quantile};
use enclasp_benches::process::played_a_role;
use enclasp_benches::proxies::{Material, Product, Proxy, max_connections};
use enclasp_benches::report::{Bound, Report, Row};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many clients there are at once.
const CLIENTS: usize = 16;

/// Of one round.
const CONNECTIONS: usize = 1600;
const BULK_BYTES: usize = 16 << 20;
const PINGS: usize = 3000;

/// How many connections come and go for [`Churn`].
const CHURN: usize = 20_000;

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let mut settings = Settings::from_arguments()?;
    // What the processes started here inherit.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    settings.idle = settings.idle.min(max_connections());
    let bench = Bench { material: Material::new()?, echo: Echo::start()?, enclasp: enclasp()? };
    let products: Vec<Product> = Product::ALL
        .into_iter()
        .filter(|product| product.name().contains(&settings.only))
        .filter(installed)
        .collect();
    let mut report = Report::new(settings.rounds);

    let mut rounds = vec![Vec::new(); products.len()];
    let running: Vec<(Proxy, Clients)> =
        products.iter().map(|product| bench.start(*product)).collect::<Outcome<_>>()?;
    for round in 0..settings.rounds {
        for (subject, measured) in running.iter().zip(&mut rounds) {
            measured.push(measure(subject)?);
        }
        eprintln!("round {} of {}", round + 1, settings.rounds);
    }
    drop(running);
    let rows: Vec<Measured> =
        products.iter().zip(&rounds).map(|(product, rounds)| Measured::of(*product, rounds)).collect();
    let idle: Vec<Idle> =
        products.iter().map(|product| bench.idle(*product, settings.idle)).collect::<Outcome<_>>()?;
    let churn: Vec<Churn> = products.iter().map(|product| bench.churn(*product)).collect::<Outcome<_>>()?;

    report.table("CPU time of the proxy", &rows.iter().map(Cpu).collect::<Vec<_>>());
    report.table("What a client waits for", &rows.iter().map(Latency).collect::<Vec<_>>());
    report.table(format!("{} idle connections", settings.idle), &idle);
    report.table(format!("{CHURN} resumed connections that come and go"), &churn);
    targets(&mut report, &products, &rounds, &idle);
    report.print(settings.json);
    if let Some(path) = settings.svg {
        std::fs::write(path, chart(&rows, &idle))?;
    }
    Ok(())
}

fn installed(product: &Product) -> bool {
    let missing = product.missing();
    if let Some(advice) = missing {
        eprintln!("without {}: {advice}", product.name());
    }
    missing.is_none()
}

/// The program to measure.
fn enclasp() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("ENCLASP") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "enclasp-cli"]);
    if !command.status()?.success() {
        return Err("`enclasp` could not be built".into());
    }
    // Benches are two folders below it.
    let this = std::env::current_exe()?;
    Ok(this.ancestors().nth(2).ok_or("an odd place for a bench")?.join("enclasp"))
}

struct Settings {
    json: bool,
    rounds: usize,
    svg: Option<PathBuf>,
    idle: usize,
    /// What the names of the products contain that are measured.
    only: String,
}

impl Settings {
    fn from_arguments() -> Outcome<Self> {
        let mut settings = Self { json: false, rounds: 9, svg: None, idle: 10_000, only: String::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--bench" => {}
                "--json" => settings.json = true,
                "--rounds" => settings.rounds = value()?.parse::<std::num::NonZeroUsize>()?.get(),
                "--svg" => settings.svg = Some(value()?.into()),
                "--idle" => settings.idle = value()?.parse::<std::num::NonZeroUsize>()?.get(),
                "--only" => settings.only = value()?,
                other => {
                    return Err(
                        format!("`{other}` is not one of --json, --rounds, --svg, --idle, --only").into()
                    );
                }
            }
        }
        Ok(settings)
    }
}

struct Bench {
    material: Material,
    echo: Echo,
    enclasp: PathBuf,
}

impl Bench {
    fn start(&self, product: Product) -> Outcome<(Proxy, Clients)> {
        let proxy = Proxy::start(product, &self.material, self.echo.port, &self.enclasp)?;
        let (chain, key) = &self.material.client;
        let identity = (chain.clone(), key.clone_key());
        let clients = Clients::new(proxy.at, identity, self.material.root(), CLIENTS)?;
        clients.connections(Kind::Full, 4 * CLIENTS).map_err(|e| format!("{}: {e}", product.name()))?;
        Ok((proxy, clients))
    }

    /// In a new process, since one that had more to do before keeps memory for later.
    fn idle(&self, product: Product, count: usize) -> Outcome<Idle> {
        let (proxy, clients) = self.start(product)?;
        let before = proxy.memory();
        let kept = clients.idle(count)?;
        let bytes = proxy.memory().saturating_sub(before) as f64 / kept.len() as f64;
        Ok(Idle {
            name: product.name(),
            kibibytes: bytes / 1024.0,
            process_mebibytes: before as f64 / MEBIBYTE,
        })
    }

    fn churn(&self, product: Product) -> Outcome<Churn> {
        let (proxy, clients) = self.start(product)?;
        clients.connections(Kind::Resumed, CHURN / 4)?;
        let (memory, descriptors) = (proxy.memory(), proxy.descriptors());
        let began = std::time::Instant::now();
        clients.connections(Kind::Resumed, CHURN)?;
        let per_second = CHURN as f64 / began.elapsed().as_secs_f64();
        // What it still closes, it has closed by then.
        std::thread::sleep(Duration::from_millis(200));
        Ok(Churn {
            name: product.name(),
            per_second,
            growth_mebibytes: (proxy.memory() as f64 - memory as f64) / MEBIBYTE,
            descriptors: proxy.descriptors() as i64 - descriptors as i64,
        })
    }
}

const MEBIBYTE: f64 = (1 << 20) as f64;

/// One proxy in one round. Times are in microseconds, of CPU or of what a client waited.
#[derive(Clone, Copy)]
struct Round {
    full: Short,
    resumed: Short,
    nanos_per_byte: f64,
    ping: (f64, f64),
}

#[derive(Clone, Copy)]
struct Short {
    cpu: f64,
    p50: f64,
    p99: f64,
}

fn measure((proxy, clients): &(Proxy, Clients)) -> Outcome<Round> {
    let short = |kind| -> Outcome<Short> {
        let before = proxy.cpu_time();
        let latencies = clients.connections(kind, CONNECTIONS)?;
        let cpu = micros(proxy.cpu_time() - before) / latencies.len() as f64;
        let of = |of_100| micros(quantile(&latencies, of_100));
        Ok(Short { cpu, p50: of(50), p99: of(99) })
    };
    let (full, resumed) = (short(Kind::Full)?, short(Kind::Resumed)?);
    let before = proxy.cpu_time();
    clients.bulk(BULK_BYTES)?;
    let nanos_per_byte = 1e3 * micros(proxy.cpu_time() - before) / (CLIENTS * BULK_BYTES) as f64;
    let pings = clients.ping_pong(PINGS)?;
    let ping = (micros(quantile(&pings, 50)), micros(quantile(&pings, 99)));
    Ok(Round { full, resumed, nanos_per_byte, ping })
}

/// The medians over all rounds.
#[derive(Serialize)]
struct Measured {
    name: &'static str,
    full_cpu_us: f64,
    resumed_cpu_us: f64,
    echo_ns_per_byte: f64,
    full_us: [f64; 2],
    resumed_us: [f64; 2],
    ping_us: [f64; 2],
}

impl Measured {
    fn of(product: Product, rounds: &[Round]) -> Self {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
        Self {
            name: product.name(),
            full_cpu_us: of(|round| round.full.cpu),
            resumed_cpu_us: of(|round| round.resumed.cpu),
            echo_ns_per_byte: of(|round| round.nanos_per_byte),
            full_us: [of(|round| round.full.p50), of(|round| round.full.p99)],
            resumed_us: [of(|round| round.resumed.p50), of(|round| round.resumed.p99)],
            ping_us: [of(|round| round.ping.0), of(|round| round.ping.1)],
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Cpu<'a>(&'a Measured);

impl Row for Cpu<'_> {
    const COLUMNS: &'static [&'static str] = &["full handshake, µs", "resumed, µs", "echo, ns per byte"];

    fn cells(&self) -> Vec<String> {
        let Self(row) = self;
        vec![
            row.name.to_owned(),
            format!("{:.0}", row.full_cpu_us),
            format!("{:.0}", row.resumed_cpu_us),
            format!("{:.2}", row.echo_ns_per_byte),
        ]
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Latency<'a>(&'a Measured);

impl Row for Latency<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "full, p50 µs",
        "full, p99 µs",
        "resumed, p50 µs",
        "resumed, p99 µs",
        "one byte, p50 µs",
        "one byte, p99 µs",
    ];

    fn cells(&self) -> Vec<String> {
        let Self(row) = self;
        let values = [row.full_us, row.resumed_us, row.ping_us].into_iter().flatten();
        std::iter::once(row.name.to_owned()).chain(values.map(|value| format!("{value:.0}"))).collect()
    }
}

#[derive(Serialize)]
struct Idle {
    name: &'static str,
    kibibytes: f64,
    process_mebibytes: f64,
}

impl Row for Idle {
    const COLUMNS: &'static [&'static str] = &["KiB per connection", "MiB of the process before"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_owned(), format!("{:.1}", self.kibibytes), format!("{:.1}", self.process_mebibytes)]
    }
}

#[derive(Serialize)]
struct Churn {
    name: &'static str,
    per_second: f64,
    growth_mebibytes: f64,
    descriptors: i64,
}

impl Row for Churn {
    const COLUMNS: &'static [&'static str] = &["per second", "memory, MiB more", "descriptors more"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            format!("{:.0}", self.per_second),
            format!("{:.1}", self.growth_mebibytes),
            self.descriptors.to_string(),
        ]
    }
}

/// Ours, with a key file, beside each peer that there is a target for. The ratios of CPU time are
/// taken within each round.
fn targets(report: &mut Report, products: &[Product], rounds: &[Vec<Round>], idle: &[Idle]) {
    let place = |product| products.iter().position(|other| *other == product);
    let Some(ours) = place(Product::Enclasp) else { return };
    let bounds = [(Product::Ghostunnel, [0.55, 0.5, 0.75]), (Product::Haproxy, [0.21, 0.19, 0.6])];
    for (peer, [full, resumed, byte]) in bounds {
        let Some(theirs) = place(peer) else { continue };
        let mut target = |what: &str, value: fn(&Round) -> f64, bound| {
            let ratios = rounds[ours].iter().zip(&rounds[theirs]).map(|(a, b)| value(a) / value(b)).collect();
            report.target(format!("{what}, beside {}", peer.name()), median(ratios), Bound::AtMost(bound));
        };
        target("CPU of a full handshake", |round| round.full.cpu, full);
        target("CPU of a resumed handshake", |round| round.resumed.cpu, resumed);
        target("CPU of an echoed byte", |round| round.nanos_per_byte, byte);
    }
    if let Some(haproxy) = place(Product::Haproxy) {
        let ratio = idle[ours].kibibytes / idle[haproxy].kibibytes;
        report.target("memory of an idle connection, beside haproxy", ratio, Bound::AtMost(0.5));
    }
    let mut latency = |what: &str, value: fn(&Round) -> f64| {
        let of = |place: usize| median(rounds[place].iter().map(value).collect());
        let peers = [Product::Ghostunnel, Product::Haproxy, Product::Nginx, Product::Stunnel];
        let best = peers.into_iter().filter_map(place).map(of).fold(f64::INFINITY, f64::min);
        if best.is_finite() {
            report.target(format!("{what}, beside the best peer"), of(ours) / best, Bound::AtMost(1.0));
        }
    };
    latency("p50 of a full connection", |round| round.full.p50);
    latency("p99 of a full connection", |round| round.full.p99);
    latency("p50 of a resumed connection", |round| round.resumed.p50);
    latency("p99 of a resumed connection", |round| round.resumed.p99);
    latency("p50 of one byte", |round| round.ping.0);
    latency("p99 of one byte", |round| round.ping.1);
}

fn chart(rows: &[Measured], idle: &[Idle]) -> String {
    let panel = |title: &str, value: fn(&Measured) -> f64| Panel {
        title: title.to_owned(),
        bars: rows.iter().map(|row| (row.name.to_owned(), value(row))).collect(),
    };
    let memory = Panel {
        title: "Memory of an idle connection, KiB".to_owned(),
        bars: idle.iter().map(|row| (row.name.to_owned(), row.kibibytes)).collect(),
    };
    let panels = [
        panel("CPU of a full handshake, µs", |row| row.full_cpu_us),
        panel("CPU of a resumed handshake, µs", |row| row.resumed_cpu_us),
        panel("CPU of an echoed byte, ns", |row| row.echo_ns_per_byte),
        memory,
    ];
    draw(&panels, "enclasp")
}
