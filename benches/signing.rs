//! Signing in this process, through the agent, and what bounds both: `cargo bench --bench signing`.

use std::error::Error;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use enclasp_benches::measure::{Subject, in_turns};
use enclasp_benches::process::{Agent, Echo, played_a_role};
use enclasp_benches::report::{Report, Settings};
use enclasp_benches::ssh_agent::SshAgent;
use enclasp_keystore::agent::{Request, Response, SignRequest, encode};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{
    Algorithm, Input, Key, KeySpec, KeyUri, Keystore, Requester, Scheme, SignContext, verify,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// As long as what a TLS 1.3 CertificateVerify signs with SHA-384 (RFC 8446 §4.4.3).
const MESSAGE: [u8; 146] = [b' '; 146];

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
    let bare = bare(algorithm)?;
    let echo = echo(&near, scheme, &context)?;
    let ssh_agent = SshAgent::start(algorithm);
    let mut subjects = vec![
        in_process(),
        through_agent(),
        Subject::new("limit: aws-lc-rs alone", bare),
        Subject::new("limit: question and answer over a Unix socket, unsigned", || {
            echo.ask().expect("an echo")
        })
        .with_process(echo.pid()),
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

/// The signature as the library makes it, with nothing around it.
fn bare(algorithm: Algorithm) -> Outcome<Box<dyn Fn() + Sync>> {
    let random = SystemRandom::new();
    Ok(match algorithm {
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::generate()?;
            Box::new(move || {
                pair.sign(&MESSAGE);
            })
        }
        _ => {
            let kind = match algorithm {
                Algorithm::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
                _ => &ECDSA_P256_SHA256_ASN1_SIGNING,
            };
            let pair = EcdsaKeyPair::generate(kind)?;
            Box::new(move || {
                pair.sign(&random, &MESSAGE).expect("a signature");
            })
        }
    })
}

/// A process that takes and gives as many bytes as the agent does for one signature.
fn echo(key: &SoftKey, scheme: Scheme, context: &SignContext) -> Outcome<Echo> {
    let (uri, input) = (key.info().uri.to_string(), Input::Message(&MESSAGE));
    let request = Request::Sign(SignRequest {
        key: &uri,
        scheme,
        input,
        reason: REASON,
        timeout_ms: None,
        requester: Requester::default(),
    });
    let response = Response::Signature(key.sign(scheme, input, context)?.into_bytes());
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    encode(1, &request, &mut asked)?;
    encode(1, &response, &mut answered)?;
    Ok(Echo::start(asked.len(), answered.len())?)
}
