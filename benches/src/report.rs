//! What a bench was asked, and how it prints what it found.

use std::fs;

use serde::Serialize;

use crate::measure::Measured;

/// What the command line asks for.
pub struct Settings {
    /// Print JSON instead of tables.
    pub json: bool,
    /// How many turns each subject has.
    pub rounds: usize,
}

impl Settings {
    /// Reads `--json` and `--rounds N`. Cargo adds `--bench`, and a filter has no meaning here.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn from_arguments() -> Result<Self, String> {
        let mut settings = Self { json: false, rounds: 51 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--json" => settings.json = true,
                "--rounds" => {
                    let rounds = arguments.next().and_then(|text| text.parse().ok());
                    settings.rounds = rounds.filter(|rounds| *rounds > 0).ok_or("--rounds takes a number")?;
                }
                other => return Err(format!("`{other}` is not one of --json, --rounds N")),
            }
        }
        Ok(settings)
    }
}

/// Everything that a bench found.
#[derive(Serialize)]
pub struct Report {
    machine: String,
    /// The load average of the last minute, before the bench began: what else was going on.
    load: String,
    rounds: usize,
    tables: Vec<Table>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Table {
    title: String,
    #[serde(skip)]
    columns: &'static [&'static str],
    #[serde(skip)]
    cells: Vec<Vec<String>>,
    rows: Vec<serde_json::Value>,
}

/// What a table has a row of.
pub trait Row: Serialize {
    /// What its cells say, after the first, which names it.
    const COLUMNS: &'static [&'static str];

    /// Its cells for people.
    fn cells(&self) -> Vec<String>;
}

impl Row for Measured {
    const COLUMNS: &'static [&'static str] =
        &["p50 µs", "p99 µs", "per second", "CPU µs", "per CPU second", "latency ×", "CPU ×"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{:.1}", self.p50_us),
            format!("{:.1}", self.p99_us),
            format!("{:.0}", self.per_second),
            format!("{:.1}", self.cpu_us),
            format!("{:.0}", self.per_cpu_second()),
            format!("{:.2}", self.latency_ratio),
            format!("{:.2}", self.cpu_ratio),
        ]
    }
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

#[derive(Serialize)]
struct Target {
    what: String,
    bound: Bound,
    measured: f64,
    met: bool,
}

impl Report {
    /// An empty report about this machine as it is now.
    pub fn new(rounds: usize) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        Self { machine: machine(), load, rounds, tables: Vec::new(), targets: Vec::new() }
    }

    /// Adds a table.
    pub fn table<R: Row>(&mut self, title: impl Into<String>, rows: &[R]) {
        let value = |row| serde_json::to_value(row).expect("numbers and names are JSON");
        self.tables.push(Table {
            title: title.into(),
            columns: R::COLUMNS,
            cells: rows.iter().map(R::cells).collect(),
            rows: rows.iter().map(value).collect(),
        });
    }

    /// Adds a ratio and what it should be.
    pub fn target(&mut self, what: impl Into<String>, measured: f64, bound: Bound) {
        let met = match bound {
            Bound::AtMost(limit) => measured <= limit,
            Bound::AtLeast(limit) => measured >= limit,
        };
        self.targets.push(Target { what: what.into(), bound, measured, met });
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            println!("{}", serde_json::to_string_pretty(self).expect("numbers and names are JSON"));
            return;
        }
        println!("{}; load {}; medians of {} rounds\n", self.machine, self.load, self.rounds);
        for table in &self.tables {
            println!("{}\n", table.title);
            println!("| | {} |", table.columns.join(" | "));
            println!("|---|{}", "--:|".repeat(table.columns.len()));
            for cells in &table.cells {
                println!("| {} |", cells.join(" | "));
            }
            println!();
        }
        for target in &self.targets {
            let met = if target.met { "met" } else { "NOT MET" };
            let bound = match target.bound {
                Bound::AtMost(limit) => format!("at most {limit}×"),
                Bound::AtLeast(limit) => format!("at least {limit}×"),
            };
            println!("- {}: {:.2}×, target {bound}: {met}", target.what, target.measured);
        }
    }
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.split('-').next().unwrap_or_default().trim())
}
