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
    rows: Vec<Measured>,
}

#[derive(Serialize)]
struct Target {
    what: String,
    limit: f64,
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
    pub fn table(&mut self, title: impl Into<String>, rows: Vec<Measured>) {
        self.tables.push(Table { title: title.into(), rows });
    }

    /// Adds a ratio and what it should be at most.
    pub fn target(&mut self, what: impl Into<String>, measured: f64, limit: f64) {
        self.targets.push(Target { what: what.into(), limit, measured, met: measured <= limit });
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
            println!("| | p50 µs | p99 µs | per second | CPU µs | per CPU second | latency × | CPU × |");
            println!("|---|--:|--:|--:|--:|--:|--:|--:|");
            for row in &table.rows {
                println!(
                    "| {} | {:.1} | {:.1} | {:.0} | {:.1} | {:.0} | {:.2} | {:.2} |",
                    row.name,
                    row.p50_us,
                    row.p99_us,
                    row.per_second,
                    row.cpu_us,
                    row.per_cpu_second(),
                    row.latency_ratio,
                    row.cpu_ratio,
                );
            }
            println!();
        }
        for target in &self.targets {
            let met = if target.met { "met" } else { "NOT MET" };
            println!("- {}: {:.2}×, target at most {}×: {met}", target.what, target.measured, target.limit);
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
