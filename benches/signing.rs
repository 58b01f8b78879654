//! Signing in this process, through the agent, and what bounds both: `cargo bench --bench signing`.

use std::error::Error;

use enclasp_benches::MESSAGE;
use enclasp_benches::bare::{BareKey, BareProcess};
use enclasp_benches::measure::{Subject, in_turns};
use enclasp_benches::process::{Agent, played_a_role};
use enclasp_benches::report::{Report, Settings};
use enclasp_benches::ssh_agent::SshAgent;
use enclasp_keystore::agent::{Request, Response, SignRequest, encode};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{
    Algorithm, Input, Key, KeySpec, KeyUri, Keystore, Requester, Scheme, SignContext, verify,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const REASON: &str = "TLS client authentication to db.internal:5432";

/// What a key in the agent may cost of what the same key costs in process.
const LATENCY_LIMIT: f64 = 2.0;
const CPU_LIMIT: f64 = 1.5;

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
    let (request, response) = lengths(&near, scheme, &context)?;
    let silent = BareProcess::start(request, response, None)?;
    let signing = BareProcess::start(request, response, Some(algorithm))?;
    let ask = |process: &BareProcess| process.ask().expect("an answer");
    let ssh_agent = SshAgent::start(algorithm);
    let mut subjects = vec![
        in_process(),
        through_agent(),
        Subject::new("limit: aws-lc-rs alone", || bare.sign()),
        Subject::new("limit: aws-lc-rs behind a Unix socket", || ask(&signing)).with_process(signing.pid()),
        Subject::new("limit: the Unix socket, unsigned", || ask(&silent)).with_process(silent.pid()),
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
    let alone = in_turns(rounds, 1, &subjects);
    let [_, far_alone, ..] = &alone[..] else { unreachable!("two subjects at least") };
    report.target(
        format!("{algorithm}, p50 latency through the agent"),
        far_alone.latency_ratio,
        LATENCY_LIMIT,
    );
    report.target(format!("{algorithm}, CPU time through the agent"), far_alone.cpu_ratio, CPU_LIMIT);
    report.table(format!("{algorithm}, one caller"), alone);

    for threads in [4, 16] {
        let together = in_turns(rounds, threads, &[in_process(), through_agent()]);
        report.table(format!("{algorithm}, {threads} callers at once"), together);
    }
    Ok(())
}

/// How many bytes the agent takes and gives for one signature.
fn lengths(key: &SoftKey, scheme: Scheme, context: &SignContext) -> Outcome<(usize, usize)> {
    let (uri, input) = (key.info().uri.to_string(), Input::Message(&MESSAGE));
    let requester = Requester::default();
    let request = SignRequest { key: &uri, scheme, input, reason: REASON, timeout_ms: None, requester };
    let response = Response::Signature(key.sign(scheme, input, context)?.into_bytes());
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    encode(1, &Request::Sign(request), &mut asked)?;
    encode(1, &response, &mut answered)?;
    Ok((asked.len(), answered.len()))
}
