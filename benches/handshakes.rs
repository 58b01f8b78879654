//! Full and resumed handshakes beside what rustls does alone: `cargo bench --bench handshakes`.
//!
//! One operation is a handshake with both ends in this process, up to where the client has the
//! session that it can resume. CPU time is that of both ends and of the agent.

use std::error::Error;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use enclasp_benches::measure::{Subject, in_turns};
use enclasp_benches::process::{Agent, played_a_role};
use enclasp_benches::report::{Report, Settings};
use enclasp_benches::tls::{Authority, Bare, Ends, new_name};
use enclasp_keystore::soft::SoftKey;
use enclasp_keystore::{Import, Key, KeyUri};
use enclasp_tls::{Credential, Version, server_name};
use rustls::crypto::{SupportedKxGroup, aws_lc_rs::kx_group};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if played_a_role() {
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let mut report = Report::new(settings.rounds);
    let bench = Bench::new()?;
    for version in [Version::Tls13, Version::Tls12] {
        bench.measure(version, settings.rounds, &mut report)?;
    }
    report.print(settings.json);
    Ok(())
}

struct Bench {
    authority: Authority,
    client: Party,
    server: Party,
    agent: Agent,
    runtime: Runtime,
}

/// A key and its certificate. The same key is in this process and in the agent.
struct Party {
    pkcs8: Zeroizing<Vec<u8>>,
    leaf: CertificateDer<'static>,
    here: Credential,
    in_agent: Credential,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let agent = Agent::start()?;
        let authority = Authority::new()?;
        let client = Party::new("client", &agent, |spki| authority.client(spki))?;
        let server = Party::new("server", &agent, |spki| authority.server(spki))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { authority, client, server, agent, runtime })
    }

    fn measure(&self, version: Version, rounds: usize, report: &mut Report) -> Outcome<()> {
        let (client, server) = (&self.client, &self.server);
        let (hybrid, classic) = (kx_group::X25519MLKEM768, kx_group::X25519);
        for resumed in [false, true] {
            let ours = |name: &str, client: &Credential, server: &Credential| {
                self.ours(name, version, resumed, client, server)
            };
            let mut subjects = match version {
                Version::Tls13 => vec![
                    self.plain("limit: rustls alone, X25519MLKEM768", version, resumed, hybrid)?,
                    self.plain("rustls alone, X25519", version, resumed, classic)?,
                ],
                Version::Tls12 => {
                    vec![self.plain("limit: rustls alone, X25519", version, resumed, classic)?]
                }
            };
            subjects.extend([
                ours("both keys in this process", &client.here, &server.here)?,
                ours("the client's key in the agent", &client.in_agent, &server.here)?,
                ours("both keys in the agent", &client.in_agent, &server.in_agent)?,
            ]);
            let kind = if resumed { "resumed" } else { "full" };
            report.table(format!("TLS {version}, {kind} handshakes"), &in_turns(rounds, &subjects).summary());
        }
        Ok(())
    }

    /// Handshakes of `enclasp_tls`.
    fn ours(
        &self,
        name: &str,
        version: Version,
        resumed: bool,
        client: &Credential,
        server: &Credential,
    ) -> Outcome<Subject<'_>> {
        let ends = Ends::new(&self.authority, client.clone(), server.clone(), version)?;
        let handshake = move |name: &ServerName<'static>| self.runtime.block_on(ends.handshake(name));
        Ok(subject(name, resumed, handshake).with_process(self.agent.pid()))
    }

    /// Handshakes of rustls alone.
    fn plain(
        &self,
        name: &str,
        version: Version,
        resumed: bool,
        group: &'static dyn SupportedKxGroup,
    ) -> Outcome<Subject<'static>> {
        let (client, server) = (&self.client, &self.server);
        let bare = Bare::new(
            &self.authority,
            (&client.leaf, &client.pkcs8),
            (&server.leaf, &server.pkcs8),
            version,
            group,
        )?;
        Ok(subject(name, resumed, move |name| bare.handshake(name)))
    }
}

impl Party {
    fn new(
        name: &str,
        agent: &Agent,
        certify: impl Fn(&[u8]) -> Outcome<CertificateDer<'static>>,
    ) -> Outcome<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let pkcs8 = Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec());
        let uri = KeyUri::soft(name)?;
        let here: Arc<dyn Key> = Arc::new(SoftKey::from_pkcs8(uri.clone(), &pkcs8)?);
        let in_agent = Arc::from(agent.keystore().import(&uri, pkcs8.clone())?);
        let leaf = certify(&here.info().spki)?;
        let credential = |key| Credential::new(vec![leaf.clone()], key);
        Ok(Self { pkcs8, here: credential(here)?, in_agent: credential(in_agent)?, leaf })
    }
}

/// A subject of `handshake`, which says whether it resumed a session with the server of that name,
/// and must do what `resumed` wants: a session is kept for a name, so that new names mean full
/// handshakes.
fn subject<'a>(
    name: &str,
    resumed: bool,
    handshake: impl Fn(&ServerName<'static>) -> bool + Sync + 'a,
) -> Subject<'a> {
    let known = server_name("www.acme.internal").expect("a name");
    if resumed {
        handshake(&known);
    }
    Subject::new(name, move || {
        let was_resumed = if resumed { handshake(&known) } else { handshake(&new_name()) };
        assert_eq!(was_resumed, resumed, "the handshake was resumed");
    })
}
