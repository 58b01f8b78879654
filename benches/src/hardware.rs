//! Hardware in software: a token of SoftHSM, and TPMs of swtpm. Each comes with a key in an agent,
//! and with a process that has a session with the hardware and does nothing but sign in a loop.

use std::error::Error;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::UserType;
use enclasp_keystore::{Key, KeySpec, KeyUri, Keystore};
use tempfile::TempDir;

use crate::bare::BareProcess;
use crate::ports::free_ports;
use crate::process::{Agent, Guard};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const SOFTHSM_SETTINGS: &str = "SOFTHSM2_CONF";
const PIN: &str = "1234";
const LABEL: &str = "bench";

/// What the loops of [`work`] are called.
const SESSION: &str = "session";
const TPM: &str = "tpm:";

/// How many signatures of the bare loops go by on one request to them, so that the requests cost
/// little beside them.
const SOFTHSM_LOOP: usize = 64;
const TPM_LOOP: usize = 8;

/// A digest to sign.
const DIGEST: [u8; 32] = [0xa5; 32];

/// A P-256 key in hardware.
pub struct Hardware {
    /// What it is called in tables.
    pub name: &'static str,
    /// The key through its agent.
    pub key: Arc<dyn Key>,
    /// Signs in a loop, as often as [`bare_loop`](Self::bare_loop) says for each request, with
    /// nobody's key or the same.
    pub bare: BareProcess,
    /// How many signatures one request to `bare` makes.
    pub bare_loop: usize,
    agent: Agent,
    /// The processes that are the hardware, if it is not a library: the agent's and the loop's.
    behind: Option<[Guard; 2]>,
    _folder: TempDir,
}

impl Hardware {
    /// A token of SoftHSM.
    ///
    /// # Errors
    /// What is missing or does not work.
    pub fn softhsm() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (tokens, settings) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
        std::fs::create_dir(&tokens)?;
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(&settings, text)?;
        let pin = folder.path().join("pin");
        std::fs::write(&pin, PIN)?;
        let environment: [(&str, &Path); 1] = [(SOFTHSM_SETTINGS, &settings)];
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "56785678"])
            .envs(environment)
            .output()
            .map_err(|e| missing("softhsm2-util", "softhsm2", &e))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().into());
        }
        let agent = Agent::of_module(SOFTHSM, &environment)?;
        let source = format!("?module-path={SOFTHSM}&pin-source=file:{}", pin.display());
        let uri: KeyUri = format!("pkcs11:token={LABEL};object={LABEL}{source}").parse()?;
        Ok(Self {
            name: "SoftHSM2",
            key: Arc::from(agent.keystore().create(&KeySpec::new(uri))?),
            bare: BareProcess::of(1, 1, SESSION, &environment)?,
            bare_loop: SOFTHSM_LOOP,
            agent,
            behind: None,
            _folder: folder,
        })
    }

    /// A TPM of swtpm, and another one for the loop, since it serves one at a time.
    ///
    /// # Errors
    /// What is missing or does not work.
    pub fn swtpm() -> Outcome<Self> {
        if !cfg!(feature = "tpm") {
            return Err("the feature `tpm` is not in this build".into());
        }
        let folder = tempfile::tempdir()?;
        let (of_agent, tcti) = start_swtpm(&folder.path().join("agent"))?;
        let (of_loop, other) = start_swtpm(&folder.path().join("loop"))?;
        let agent = Agent::of_tpm(&tcti)?;
        let uri = KeyUri::tpm(LABEL, Some(&tcti))?;
        Ok(Self {
            name: "swtpm",
            key: Arc::from(agent.keystore().create(&KeySpec::new(uri))?),
            bare: BareProcess::of(1, 1, &format!("{TPM}{other}"), &[])?,
            bare_loop: TPM_LOOP,
            agent,
            behind: Some([of_agent, of_loop]),
            _folder: folder,
        })
    }

    /// The processes that sign through the agent.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        let behind = self.behind.as_ref().map(|[of_agent, _]| of_agent.pid());
        std::iter::once(self.agent.pid()).chain(behind)
    }

    /// The processes that sign in the loop.
    pub fn bare_processes(&self) -> impl Iterator<Item = u32> {
        let behind = self.behind.as_ref().map(|[_, of_loop]| of_loop.pid());
        std::iter::once(self.bare.pid()).chain(behind)
    }
}

/// What a bare process does on each request, if `what` is one of the loops.
pub(crate) fn work(what: &str) -> Outcome<Option<Box<dyn FnMut()>>> {
    match what.strip_prefix(TPM) {
        Some(tcti) => sign_in_tpm(tcti).map(Some),
        None if what == SESSION => sign_in_session().map(Some),
        None => Ok(None),
    }
}

/// Signs in one session of SoftHSM, with the agent's key.
fn sign_in_session() -> Outcome<Box<dyn FnMut()>> {
    let module = Pkcs11::new(SOFTHSM)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let slot = *module.get_slots_with_token()?.first().ok_or("there is no token")?;
    let session = module.open_ro_session(slot)?;
    session.login(UserType::User, Some(&PIN.into()))?;
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(LABEL.into())];
    let key = *session.find_objects(&template)?.first().ok_or("there is no key")?;
    Ok(Box::new(move || {
        for _ in 0..SOFTHSM_LOOP {
            black_box(session.sign(&Mechanism::Ecdsa, key, &DIGEST).expect("a signature"));
        }
    }))
}

#[cfg(not(feature = "tpm"))]
fn sign_in_tpm(_: &str) -> Outcome<Box<dyn FnMut()>> {
    Err("the feature `tpm` is not in this build".into())
}

/// Signs in a TPM, with a primary key.
#[cfg(feature = "tpm")]
fn sign_in_tpm(tcti: &str) -> Outcome<Box<dyn FnMut()>> {
    use std::str::FromStr;

    use tss_esapi::attributes::ObjectAttributesBuilder;
    use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
    use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
    use tss_esapi::interface_types::ecc::EccCurve;
    use tss_esapi::interface_types::resource_handles::Hierarchy;
    use tss_esapi::interface_types::session_handles::AuthSession;
    use tss_esapi::structures::{
        Digest, EccPoint, EccScheme, HashScheme, HashcheckTicket, KeyDerivationFunctionScheme, Public,
        PublicEccParameters, SignatureScheme, SymmetricDefinitionObject,
    };
    use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;
    use tss_esapi::{Context, TctiNameConf};

    let mut context = Context::new(TctiNameConf::from_str(tcti)?)?;
    context.set_sessions((Some(AuthSession::Password), None, None));
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()?;
    let template = Public::builder()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            EccScheme::Null,
            EccCurve::NistP256,
            KeyDerivationFunctionScheme::Null,
        ))
        .with_ecc_unique_identifier(EccPoint::default())
        .build()?;
    let key = context.create_primary(Hierarchy::Owner, template, None, None, None, None)?.key_handle;
    let digest = Digest::try_from(DIGEST.as_slice())?;
    let scheme = SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })?;
    Ok(Box::new(move || {
        for _ in 0..TPM_LOOP {
            black_box(context.sign(key, digest.clone(), scheme, ticket.clone()).expect("a signature"));
        }
    }))
}

/// A new TPM, and its TCTI.
fn start_swtpm(state: &Path) -> Outcome<(Guard, String)> {
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    std::fs::create_dir(state)?;
    // The control channel is expected on the port after that of the commands.
    let port = free_ports(2);
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", state.display())])
        .args(["--server", &format!("type=tcp,port={port}")])
        .args(["--ctrl", &format!("type=tcp,port={}", port + 1)])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| missing("swtpm", "swtpm", &e))?;
    let guard = Guard::new(child);
    let until = Instant::now() + Duration::from_secs(5);
    while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
        if Instant::now() >= until {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((guard, format!("swtpm:host=127.0.0.1,port={port}")))
}

fn missing(program: &str, package: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("`{program}` is not installed (Debian: {package})"),
        _ => format!("`{program}`: {error}"),
    }
}
