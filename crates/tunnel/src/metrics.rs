//! What a tunnel counts and times, in the forms that monitoring systems read.

mod histogram;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Error;
use histogram::Histogram;

/// The counters and timers of one tunnel or of several together. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Values>);

#[derive(Debug, Default)]
struct Values {
    accepted: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    open: AtomicU64,
    ended_by_time: AtomicU64,
    handshake: Histogram,
    lifetime: Histogram,
}

impl Metrics {
    /// Counts a connection that was accepted, until what is returned is dropped.
    pub(crate) fn connection(&self) -> Counted {
        self.0.accepted.fetch_add(1, Relaxed);
        self.0.open.fetch_add(1, Relaxed);
        Counted { values: self.0.clone(), accepted: Instant::now() }
    }

    fn counters(&self) -> [(&'static str, u64); 5] {
        let values = &self.0;
        [
            ("accept.total", values.accepted.load(Relaxed)),
            ("accept.success", values.succeeded.load(Relaxed)),
            ("accept.error", values.failed.load(Relaxed)),
            ("accept.timeout", values.timed_out.load(Relaxed)),
            ("conn.timeout", values.ended_by_time.load(Relaxed)),
        ]
    }

    fn open(&self) -> u64 {
        self.0.open.load(Relaxed)
    }

    fn timers(&self) -> [(&'static str, &Histogram); 2] {
        [("conn.handshake", &self.0.handshake), ("conn.lifetime", &self.0.lifetime)]
    }

    /// Names and values as ghostunnel gives them: times are in nanoseconds.
    fn flat(&self, prefix: &str) -> Vec<(String, f64)> {
        let mut flat: Vec<(String, f64)> = self
            .counters()
            .into_iter()
            .chain([("conn.open", self.open())])
            .map(|(name, value)| (format!("{prefix}.{name}"), value as f64))
            .collect();
        for (name, timer) in self.timers() {
            let mut add = |what: &str, value: f64| flat.push((format!("{prefix}.{name}.{what}"), value));
            add("count", timer.count() as f64);
            for (what, seconds) in [("min", timer.min()), ("max", timer.max()), ("mean", timer.mean())] {
                add(what, seconds * 1e9);
            }
            for (what, quantile) in PERCENTILES {
                add(what, timer.quantile(quantile) * 1e9);
            }
        }
        flat
    }

    /// A list of objects with `timestamp` (Unix seconds), `metric`, `value` and `hostname`.
    pub fn json(&self, prefix: &str, hostname: &str) -> Value {
        let timestamp = unix_now();
        let object = |(metric, value): (String, f64)| {
            // A whole number is written as one.
            let value = if value.fract() == 0.0 { json!(value as u64) } else { json!(value) };
            json!({ "timestamp": timestamp, "metric": metric, "value": value, "hostname": hostname })
        };
        self.flat(prefix).into_iter().map(object).collect()
    }

    /// The text format of Prometheus (0.0.4); times are in seconds.
    pub fn prometheus(&self, prefix: &str) -> String {
        let name = |name: &str| format!("{prefix}.{name}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let mut text = String::new();
        // Writing to a string does not fail.
        for (metric, value) in self.counters() {
            let name = name(metric);
            let _ = writeln!(text, "# TYPE {name} counter\n{name} {value}");
        }
        let open = name("conn.open");
        let _ = writeln!(text, "# TYPE {open} gauge\n{open} {}", self.open());
        for (metric, timer) in self.timers() {
            let name = format!("{}_seconds", name(metric));
            let _ = writeln!(text, "# TYPE {name} summary");
            for (_, quantile) in PERCENTILES {
                let _ = writeln!(text, "{name}{{quantile=\"{quantile}\"}} {}", timer.quantile(quantile));
            }
            let _ = writeln!(text, "{name}_sum {}\n{name}_count {}", timer.sum(), timer.count());
        }
        text
    }

    /// Graphite's plain text: `NAME VALUE SECONDS` a line.
    pub fn graphite(&self, prefix: &str) -> String {
        let timestamp = unix_now();
        self.flat(prefix).into_iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name} {value} {timestamp}");
            text
        })
    }
}

const PERCENTILES: [(&str, f64); 4] =
    [("50-percentile", 0.5), ("75-percentile", 0.75), ("95-percentile", 0.95), ("99-percentile", 0.99)];

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A connection that is counted as open.
pub(crate) struct Counted {
    values: Arc<Values>,
    accepted: Instant,
}

impl Counted {
    /// The TLS handshake is done.
    pub(crate) fn established(&self) {
        self.values.succeeded.fetch_add(1, Relaxed);
        self.values.handshake.record(self.accepted.elapsed());
    }

    /// It did not come about.
    pub(crate) fn refused(&self, error: &Error) {
        let is_timeout = matches!(
            error,
            Error::Silence { .. }
                | Error::ConnectTimeout { .. }
                | Error::Tls(enclasp_tls::Error::Timeout { .. })
        );
        let counter = if is_timeout { &self.values.timed_out } else { &self.values.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// It was ended because its time was over.
    pub(crate) fn timed_out(&self) {
        self.values.ended_by_time.fetch_add(1, Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.values.open.fetch_sub(1, Relaxed);
        self.values.lifetime.record(self.accepted.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn metrics() -> Metrics {
        let metrics = Metrics::default();
        let open = metrics.connection();
        open.established();
        metrics.connection().refused(&Error::Silence { peer: "p".into(), after: Duration::ZERO });
        let listen = Error::Endpoint { text: "x".into(), reason: "y".into() };
        metrics.connection().refused(&listen);
        metrics.connection().timed_out();
        std::mem::forget(open);
        metrics
    }

    #[test]
    fn counts_what_became_of_connections() {
        let json = metrics().json("enclasp", "host");
        let value = |name: &str| {
            let found = json.as_array().unwrap().iter().find(|entry| entry["metric"] == name);
            found.unwrap_or_else(|| panic!("{name}: {json}"))["value"].clone()
        };
        for (name, expected) in [
            ("enclasp.accept.total", 4),
            ("enclasp.accept.success", 1),
            ("enclasp.accept.error", 1),
            ("enclasp.accept.timeout", 1),
            ("enclasp.conn.timeout", 1),
            ("enclasp.conn.open", 1),
            ("enclasp.conn.handshake.count", 1),
            ("enclasp.conn.lifetime.count", 3),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert!(json[0]["timestamp"].as_u64().unwrap() > 1_700_000_000 && json[0]["hostname"] == "host");
    }

    #[test]
    fn texts_have_a_line_a_value() {
        let graphite = metrics().graphite("a.b");
        assert!(graphite.lines().all(|line| line.starts_with("a.b.") && line.split(' ').count() == 3));
        let prometheus = metrics().prometheus("a.b");
        for line in [
            "# TYPE a_b_accept_total counter",
            "a_b_accept_total 4",
            "a_b_conn_open 1",
            "a_b_conn_lifetime_seconds_count 3",
        ] {
            assert!(prometheus.lines().any(|found| found == line), "{line}\n{prometheus}");
        }
        assert!(prometheus.contains("a_b_conn_handshake_seconds{quantile=\"0.99\"} "));
    }
}
