//! What the scenarios are written with.

mod authority;
mod backend;
mod browser;
mod built;
mod console;
mod elsewhere;
mod hardware;
mod home;
mod hosts;
mod killed;
mod net;
mod parts;
mod ports;
#[allow(dead_code, reason = "benches use all of it")]
mod postgres;
mod process;
mod tap;
mod terminal;

pub(crate) use authority::{ALGORITHMS, CURVES, VERSIONS};
pub(crate) use backend::{Backend, noise};
pub(crate) use browser::Browser;
pub(crate) use built::{examples, generated, module};
pub(crate) use console::Console;
pub(crate) use elsewhere::{Elsewhere, LONG_AGO, NOW};
pub(crate) use hardware::{Keystore, SOFTHSM};
pub(crate) use home::{Home, enclasp_at, kill_agent_of};
pub(crate) use hosts::ENGINE;
pub(crate) use net::{ask, eventually, free_port, wait_until_listening};
pub(crate) use parts::{is_root, needs};
pub(crate) use ports::free_ports;
pub(crate) use postgres::Postgres;
pub(crate) use process::{Done, PATIENCE, Running, run, run_with_input};
pub(crate) use tap::{CaptureFile, Tap};
pub(crate) use terminal::Terminal;
