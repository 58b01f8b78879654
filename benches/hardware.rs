//! What 16 callers get of a key in hardware, beside what there is to be had: `cargo bench --bench
//! hardware`, and `--features tpm` for a TPM too.
//!
//! The limit of signatures is the smaller of two: what one session with the hardware gives that is
//! called in a loop, and what the cores have CPU time for, which each signature costs in the
//! hardware (it is software here), in its verification and in the socket. To a handshake's limit the
//! CPU time of both ends' TLS is added. All of it is measured in turns in the same run.

use std::error::Error;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use enclasp_benches::MESSAGE;
use enclasp_benches::bare::{BareKey, BareProcess, lengths};
use enclasp_benches::hardware::Hardware;
use enclasp_benches::measure::{Run, Subject, in_turns};
use enclasp_benches::process::played_a_role;
use enclasp_benches::report::{Bound, Report, Row, Settings};
use enclasp_benches::tls::{Authority, Bare, Ends, new_name};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Input, Key, KeyUri, Scheme, SignContext, verify};
use enclasp_tls::Version;
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;
use serde::Serialize;
use tokio::runtime::Builder;

type Outcome<T> = Result<T, Box<dyn Error>>;

const REASON: &str = "TLS client authentication to db.internal:5432";

/// How many want something at once.
const CALLERS: usize = 16;

/// What the signatures per second should be of the limit.
const OF_LIMIT: Bound = Bound::AtLeast(0.9);

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let mut report = Report::new(settings.rounds);
    for (name, hardware) in [("SoftHSM2", Hardware::softhsm()), ("swtpm", Hardware::swtpm())] {
        match hardware {
            Ok(hardware) => measure(&hardware, settings.rounds, &mut report)?,
            Err(missing) => eprintln!("without a key in {name}: {missing}"),
        }
    }
    report.print(settings.json);
    Ok(())
}

fn measure(hardware: &Hardware, rounds: usize, report: &mut Report) -> Outcome<()> {
    let (key, scheme, message) = (&hardware.key, Scheme::EcdsaP256Sha256, Input::Message(&MESSAGE));
    let context = SignContext::new(REASON);
    let signature = key.sign(scheme, message, &context)?;
    verify(&key.info().spki, scheme, message, signature.as_ref())?;
    let (request, response) = lengths(key, REASON)?;
    let socket = BareProcess::start(request, response, None)?;
    let software = BareKey::generate(Algorithm::P256)?;

    let authority = Authority::new()?;
    let pair = || Outcome::Ok(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?.to_pkcs8v1()?);
    let (client, server) = (pair()?, pair()?);
    let soft = |pkcs8: &[u8]| Outcome::Ok(SoftKey::from_pkcs8(KeyUri::soft("bench")?, pkcs8)?);
    let of_client = authority.client(&soft(client.as_ref())?.info().spki)?;
    let of_server = authority.server(&soft(server.as_ref())?.info().spki)?;
    let tls = Bare::new(
        &authority,
        (&of_client, client.as_ref()),
        (&of_server, server.as_ref()),
        Version::Tls13,
        X25519MLKEM768,
    )?;
    let credential = authority.server_with(soft(server.as_ref())?)?;
    let ends = Ends::new(&authority, authority.client_with(key.clone())?, credential, Version::Tls13)?;
    let cores = std::thread::available_parallelism()?.get();
    let runtime = Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
    let handshake = || {
        let ends = ends.clone();
        let task = runtime.spawn(async move { ends.handshake(&new_name()).await });
        assert!(!runtime.block_on(task).expect("a handshake"), "the handshake was resumed");
    };

    let sign = || drop(key.sign(scheme, message, &context).expect("a signature"));
    let check = || verify(&key.info().spki, scheme, message, signature.as_ref()).expect("it verified before");
    let ask = |process: &BareProcess| process.ask().expect("an answer");
    let through = |subject| hardware.processes().fold(subject, Subject::with_process);
    let bare = Subject::new("one bare session in a loop", || ask(&hardware.bare));
    let bare = bare.of_operations(hardware.bare_loop);
    let rounds = in_turns(
        rounds,
        &[
            hardware.bare_processes().fold(bare, Subject::with_process),
            Subject::new("the verification", check),
            Subject::new("the Unix socket, unsigned", || ask(&socket)).with_process(socket.pid()),
            through(Subject::new("a signature through the agent, 1 caller", sign)),
            through(Subject::new("**the same, 16 callers**", sign).from_callers(CALLERS)),
            Subject::new("TLS of both ends, rustls alone, software keys", || {
                tls.handshake(&new_name());
            }),
            Subject::new("a signature of aws-lc-rs", || software.sign()),
            through(Subject::new("**a full handshake, 16 at once**", handshake).from_callers(CALLERS)),
        ],
    );
    let name = hardware.name;
    report.table(format!("A P-256 key in {name}, and what it takes"), &rounds.summary());

    let session = |round: &[Run]| round[0].per_second;
    let by_cpu = |cpu_us: f64| cores as f64 * 1e6 / cpu_us;
    let signature_us = |round: &[Run]| round[0].cpu_us + round[1].cpu_us + round[2].cpu_us;
    // The client's signature in software is what the hardware does here.
    let handshake_us = |round: &[Run]| signature_us(round) + round[5].cpu_us - round[6].cpu_us;
    let against = |name, cpu_us: &dyn Fn(&[Run]) -> f64, reached: usize| Reached {
        name,
        session: rounds.median(session),
        cpu_us: rounds.median(cpu_us),
        by_cpu: rounds.median(|round| by_cpu(cpu_us(round))),
        limit: rounds.median(|round| session(round).min(by_cpu(cpu_us(round)))),
        reached: rounds.median(|round| round[reached].per_second),
        ratio: rounds.median(|round| round[reached].per_second / session(round).min(by_cpu(cpu_us(round)))),
    };
    let reached = [
        against("signatures, 16 callers", &signature_us, 4),
        against("full handshakes, 16 at once", &handshake_us, 7),
    ];
    report.target(format!("signatures of {name} for 16 callers, of the limit"), reached[0].ratio, OF_LIMIT);
    report.table(format!("A P-256 key in {name}, per second"), &reached);
    Ok(())
}

/// What was reached of a limit, in operations per second.
#[derive(Serialize)]
struct Reached {
    name: &'static str,
    /// What one session gives.
    session: f64,
    /// CPU time that an operation has to cost, in microseconds.
    cpu_us: f64,
    /// What the cores give by that.
    by_cpu: f64,
    /// The smaller of both.
    limit: f64,
    reached: f64,
    /// `reached` over `limit` in the same round.
    ratio: f64,
}

impl Row for Reached {
    const COLUMNS: &'static [&'static str] =
        &["one session", "CPU µs", "cores ÷ CPU", "limit", "reached", "of the limit"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            format!("{:.0}", self.session),
            format!("{:.0}", self.cpu_us),
            format!("{:.0}", self.by_cpu),
            format!("{:.0}", self.limit),
            format!("{:.0}", self.reached),
            format!("{:.2}", self.ratio),
        ]
    }
}
