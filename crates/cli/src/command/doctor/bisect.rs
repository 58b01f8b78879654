//! `enclasp doctor bisect`: the same connection with a software key, to see whether it is the key.

use std::path::PathBuf;
use std::sync::Arc;

use enclasp_doctor::{
    Bisection, Confidence, Finding, Outcome as Came, Report, Trial, code, differences, examine_bisection,
};
use enclasp_identity::{Identity, Pkcs12, State};
use enclasp_keystore::KeyUri;
use enclasp_keystore::soft::SoftKey;
use enclasp_tls::{Credential, Version};
use serde::Serialize;

use super::authority::{Authority, software_key};
use super::connect::{Attempt, Caller, Way};
use super::{listen, verdict};
use crate::args::Global;
use crate::failure::Outcome;
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor bisect db.internal:5432 --identity laptop --control laptop-soft --starttls postgres
  enclasp doctor bisect db.internal:8443 --identity laptop --p12 laptop.p12 --password-file passphrase
  enclasp doctor bisect db.internal:8443 --identity laptop

Each version and each scheme that the server takes is tried with both keys. Without --control and
--p12 the identity's authority is asked for a certificate with the same names and a software key, which is
good for ten minutes. If it issues none (`bisect = true` in the profile), both keys are tried at a server of
the doctor's own, since the named one would refuse the software key.")]
pub(crate) struct Bisect {
    /// The server.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// The identity whose key is in question.
    #[arg(long, value_name = "NAME")]
    identity: String,
    /// An identity with a software key that the server accepts.
    #[arg(long, value_name = "NAME", conflicts_with = "p12")]
    control: Option<String>,
    /// The same in a PKCS#12 file.
    #[arg(long, value_name = "FILE")]
    p12: Option<PathBuf>,
    /// File with the passphrase of the PKCS#12 file [env: ENCLASP_P12_PASSWORD].
    #[arg(long, value_name = "FILE", requires = "p12")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    way: Way,
}

/// The identity that the one in question is compared with, and where.
struct Control {
    name: String,
    credential: Credential,
    place: Place,
}

enum Place {
    /// At the server that was named.
    Named,
    /// At a server of the doctor's own, and why.
    StandIn { port: u16, reason: String },
}

const TWIN: &str = "its twin with a software key";

/// What is printed as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a Report,
    trials: &'a [Trial],
}

pub(crate) async fn run(global: &Global, bisect: &Bisect) -> Outcome {
    let state = global.state()?;
    let identity = state.identities()?.get(&bisect.identity)?;
    let key = state.open_key(&identity.key)?;
    if key.info().policy.prompts() {
        output::note(format_args!("`{}` asks a person: you will be asked at each connection", identity.key));
    }
    let hardware = Credential::new(identity.chain.clone(), key)?;
    let control = bisect.control(&state, &identity, &hardware).await?;
    let elsewhere = bisect.way.to_another();
    let (address, way, stand_in) = match control.place {
        Place::Named => (bisect.address.clone(), &bisect.way, None),
        Place::StandIn { port, reason } => {
            output::note(format_args!("{reason}: both keys are tried at a server of the doctor's own"));
            (format!("localhost:{port}"), &elsewhere, Some(reason))
        }
    };
    let bench = Bench { way, address, is_own: stand_in.is_some(), hardware, software: control.credential };
    let seen = Bisection {
        examined: format!("{} as `{}` and as {}", bench.address, identity.name, control.name),
        trials: bench.trials().await?,
        differences: match stand_in {
            // Nobody there looks at the names.
            Some(_) => Vec::new(),
            None => differences(bench.hardware.leaf(), bench.software.leaf()),
        },
        stand_in,
    };
    let report = examine_bisection(&seen);
    if global.json {
        output::json(&Shown { report: &report, trials: &seen.trials })?;
    } else {
        output::line(&report)?;
        let head = ["version", "scheme", "hardware", "software"].map(str::to_owned).to_vec();
        let rows = seen.trials.iter().map(|trial| {
            vec![
                trial.version.clone(),
                trial.scheme_name(),
                trial.hardware.to_string(),
                trial.software.to_string(),
            ]
        });
        output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())?;
    }
    verdict([&report])
}

impl Bisect {
    async fn control(&self, state: &State, identity: &Identity, hardware: &Credential) -> Outcome<Control> {
        if let Some(name) = &self.control {
            let credential = Credential::open(state, &state.identities()?.get(name)?)?;
            return Ok(Control { name: format!("`{name}`"), credential, place: Place::Named });
        }
        if let Some(path) = &self.p12 {
            let passphrase = input::secret(
                "passphrase of the PKCS#12 file",
                self.password_file.as_deref(),
                "ENCLASP_P12_PASSWORD",
                "--password-file",
            )?;
            let p12 = Pkcs12::open(&input::file(path)?, &passphrase)?;
            let key = SoftKey::from_pkcs8(KeyUri::soft("control")?, &p12.private_key)?;
            let chain = p12.certificates.iter().map(|certificate| certificate.der().clone()).collect();
            let credential = Credential::new(chain, Arc::new(key))?;
            return Ok(Control { name: path.display().to_string(), credential, place: Place::Named });
        }
        let key = Arc::new(software_key("twin", hardware.algorithm())?);
        let reason = match enclasp_enroll::bisect(identity, hardware, key.clone()).await {
            Ok(chain) => {
                let credential = Credential::new(chain, key)?;
                return Ok(Control { name: TWIN.into(), credential, place: Place::Named });
            }
            Err(error) => format!("no software identity was named, and the authority issues none: {error}"),
        };
        let authority = Authority::open(state)?;
        Ok(Control {
            name: TWIN.into(),
            credential: authority.twin(&identity.leaf()?)?.credential()?,
            place: Place::StandIn { port: listen::stand_in(&authority)?, reason },
        })
    }
}

/// Two keys before one server.
struct Bench<'a> {
    way: &'a Way,
    address: String,
    /// The server is the doctor's own, which accepts everything: what is wrong is for us to say.
    is_own: bool,
    hardware: Credential,
    software: Credential,
}

impl Bench<'_> {
    async fn trials(&self) -> Outcome<Vec<Trial>> {
        let spinner = output::Spinner::start(format!("connecting to {}", self.address));
        let versions = match self.way.tls {
            Some(version) => vec![version],
            None => vec![Version::Tls13, Version::Tls12],
        };
        let mut trials = Vec::new();
        for version in versions {
            spinner.say(format!("TLS {version}, each key by its own choice"));
            let hardware = self.attempt(&self.hardware, version).await?;
            let software = self.attempt(&self.software, version).await?;
            let chosen = [&hardware, &software]
                .map(|attempt| attempt.seen.client_signature.as_ref().and_then(|seen| seen.scheme));
            let request = hardware.seen.request.as_ref().or(software.seen.request.as_ref());
            let offered = request.map(|request| request.schemes.clone()).unwrap_or_default();
            trials.push(Trial {
                version: format!("TLSv{version}"),
                scheme: None,
                hardware: self.outcome(&hardware),
                software: self.outcome(&software),
            });
            for scheme in self.schemes(version) {
                let tried = chosen.iter().all(|chosen| *chosen == Some(scheme));
                if offered.contains(&scheme) && !tried {
                    spinner.say(format!("TLS {version}, scheme 0x{scheme:04x}"));
                    trials.push(Trial {
                        version: format!("TLSv{version}"),
                        scheme: Some(scheme),
                        hardware: self.with_scheme(&self.hardware, version, scheme).await?,
                        software: self.with_scheme(&self.software, version, scheme).await?,
                    });
                }
            }
        }
        Ok(trials)
    }

    /// The code points that one of the keys or both can sign with.
    fn schemes(&self, version: Version) -> Vec<u16> {
        let mut schemes = Vec::new();
        for credential in [&self.hardware, &self.software] {
            for scheme in credential.schemes_in(version) {
                if !schemes.contains(&scheme.code_point()) {
                    schemes.push(scheme.code_point());
                }
            }
        }
        schemes
    }

    async fn with_scheme(&self, credential: &Credential, version: Version, scheme: u16) -> Outcome<Came> {
        let able = credential.schemes_in(version).into_iter().find(|able| able.code_point() == scheme);
        match able.and_then(|scheme| credential.with_only(scheme)) {
            Some(credential) => Ok(self.outcome(&self.attempt(&credential, version).await?)),
            None => Ok(Came::Untried { reason: "the key was not proved to sign so".into() }),
        }
    }

    async fn attempt(&self, credential: &Credential, version: Version) -> Outcome<Attempt> {
        let as_whom = format!("with `{}`", credential.uri());
        let caller = Caller { as_whom, credential: Some(credential.clone()), server_roots: None };
        self.way.attempt(&self.address, &caller, Some(version)).await
    }

    fn outcome(&self, attempt: &Attempt) -> Came {
        let Attempt { seen, report, .. } = attempt;
        let refused = !seen.is_complete() || seen.alerts.iter().any(|alert| !alert.is_closure());
        match report.verdict() {
            Some(verdict) if verdict.code == code::NO_COMMON_VERSION => {
                Came::Untried { reason: "the server does not speak it".into() }
            }
            // What only the doctor finds wrong did not keep a server from accepting it.
            Some(verdict) if refused || self.is_own => Came::Refused { finding: Box::new(verdict.clone()) },
            None if refused => Came::Refused { finding: Box::new(not_understood()) },
            _ if seen.request.is_none() => {
                Came::Untried { reason: "the server asks for no client certificate".into() }
            }
            _ => Came::Accepted { scheme: seen.client_signature.as_ref().and_then(|seen| seen.scheme) },
        }
    }
}

fn not_understood() -> Finding {
    Finding::error(
        code::NOT_UNDERSTOOD,
        "the handshake was not completed",
        "No rule understands why.",
        "`enclasp doctor connect` shows the whole connection; the server's log may say more.",
    )
    .confidence(Confidence::Unknown)
}
