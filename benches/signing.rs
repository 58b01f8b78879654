//! Signing in this process, through the agent, and what bounds both: `cargo bench --bench signing`.

use std::error::Error;

use enclasp_benches::MESSAGE;
use enclasp_benches::bare::{BareKey, BareProcess, lengths};
use enclasp_benches::measure::{Subject, in_turns};
use enclasp_benches::process::{Agent, played_a_role};
use enclasp_benches::report::{Bound, Report, Settings};
use enclasp_benches::ssh_agent::SshAgent;
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Algorithm, Input, Key, KeySpec, KeyUri, Keystore, SignContext, verify};

type Outcome<T> = Result<T, Box<dyn Error>>;

const REASON: &str = "TLS client authentication to db.internal:5432";

/// What a key in the agent may cost of what the same key costs in process.
const LATENCY: Bound = Bound::AtMost(2.0);
const CPU: Bound = Bound::AtMost(1.5);

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let agent = Agent::start()?;
    let mut report = Report::new(settings.rounds);
    for algorithm in [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519] {
        measure(algorithm, &agent, settings.rounds, &mut report)?;
    }
    report.print(settings.json);
    Ok(())
}

fn measure(algorithm: Algorithm, agent: &Agent, rounds: usize, report: &mut Report) -> Outcome<()> {
    let uri = KeyUri::soft(&format!("bench-{}", algorithm.to_string().to_lowercase()))?;
    let scheme = algorithm.natural_scheme();
    let near = SoftKey::generate(uri.clone(), algorithm)?;
    let far = agent.keystore().create(&KeySpec { algorithm, ..KeySpec::new(uri) })?;
    let context = SignContext::new(REASON);
    for key in [&near, &*far] as [&dyn Key; 2] {
        let signature = key.sign(scheme, Input::Message(&MESSAGE), &context)?;
        verify(&key.info().spki, scheme, Input::Message(&MESSAGE), signature.as_ref())?;
    }

    let sign =
        |key: &dyn Key| drop(key.sign(scheme, Input::Message(&MESSAGE), &context).expect("a signature"));
    let in_process = || Subject::new("key in this process", || sign(&near));
    let through_agent = || Subject::new("key in the agent", || sign(&*far)).with_process(agent.pid());
    let bare = BareKey::generate(algorithm)?;
    let (request, response) = lengths(&near, REASON)?;
    let silent = BareProcess::start(request, response, None)?;
    let signing = BareProcess::start(request, response, Some(algorithm))?;
    let silent_pipes = BareProcess::behind_pipes(request, response, None)?;
    let signing_pipes = BareProcess::behind_pipes(request, response, Some(algorithm))?;
    let ask = |process: &BareProcess| process.ask().expect("an answer");
    let ssh_agent = SshAgent::start(algorithm);
    let mut subjects = vec![
        in_process(),
        through_agent(),
        Subject::new("limit: aws-lc-rs alone", || bare.sign()),
        Subject::new("limit: aws-lc-rs behind a Unix socket", || ask(&signing)).with_process(signing.pid()),
        Subject::new("limit: the Unix socket, unsigned", || ask(&silent)).with_process(silent.pid()),
        Subject::new("limit: aws-lc-rs behind two pipes", || ask(&signing_pipes))
            .with_process(signing_pipes.pid()),
        Subject::new("limit: two pipes, unsigned", || ask(&silent_pipes)).with_process(silent_pipes.pid()),
    ];
    match &ssh_agent {
        Ok(ssh_agent) => subjects.push(
            Subject::new("peer: key in OpenSSH's ssh-agent", || {
                ssh_agent.sign(&MESSAGE).expect("a signature of ssh-agent");
            })
            .with_process(ssh_agent.pid()),
        ),
        Err(error) => eprintln!("without ssh-agent: {error}"),
    }
    let alone = in_turns(rounds, &subjects).summary();
    let [_, far_alone, ..] = &alone[..] else { unreachable!("two subjects at least") };
    let what = |what: &str| format!("{algorithm}, {what} through the agent");
    report.target(what("p50 latency"), far_alone.latency_ratio, LATENCY);
    report.target(what("CPU time"), far_alone.cpu_ratio, CPU);
    report.table(format!("{algorithm}, one caller"), &alone);

    for callers in [4, 16] {
        let subjects = [in_process(), through_agent()].map(|subject| subject.from_callers(callers));
        report
            .table(format!("{algorithm}, {callers} callers at once"), &in_turns(rounds, &subjects).summary());
    }
    Ok(())
}
