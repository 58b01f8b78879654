//! `enclasp ca init`: a new authority, under a root of its own or of somebody else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use enclasp_ca::{HttpUrl, NewAuthority, TokenRequest, import, init, request};
use enclasp_enroll::Endpoint;
use enclasp_identity::Holder;
use enclasp_keystore::KeyUri;
use enclasp_pki::{NameConstraint, NameConstraints, pem};
use serde_json::json;

use super::{Place, keystore};
use crate::args::Global;
use crate::command::blocking;
use crate::failure::Outcome;
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp ca init --dir ca --name Acme
  enclasp ca init --dir ca --name Acme --url https://ca.acme.internal:8443
  enclasp ca init --dir ca --name Acme --key tpm:
  enclasp ca init --dir ca --name Acme --key 'pkcs11:token=HSM?module-path=/usr/lib/x.so&pin-source=file:/etc/hsm.pin'

  enclasp ca init --dir ca --name Acme --csr-out acme.csr     under a root that there is already
  enclasp ca init --dir ca --import chain.pem                 when that one has signed")]
pub(crate) struct Init {
    #[command(flatten)]
    place: Place,
    /// Its name, which the subjects of its certificates begin with.
    #[arg(long, required_unless_present = "import")]
    name: Option<String>,
    /// Where devices will reach it: goes into tokens and into its server's certificate.
    #[arg(long, default_value = "https://127.0.0.1:8443")]
    url: Endpoint,
    /// Where everybody will fetch CRLs and ask OCSP, in the clear: goes into certificates
    /// [default: they carry no such URL].
    #[arg(long, value_name = "http://HOST:PORT")]
    http_url: Option<HttpUrl>,
    /// The keystore for the keys of the root, for issuing and for the audit log: `tpm:`,
    /// `pkcs11:token=TOKEN?module-path=PATH` [default: software keys].
    #[arg(long, value_name = "URI")]
    key: Option<KeyUri>,
    /// Another one for the root's key.
    #[arg(long, value_name = "URI")]
    root_key: Option<KeyUri>,
    /// Permit only these names in certificates: dns:acme.internal, ip:10.0.0.0/8, email:acme.ch, uri:acme.ch.
    /// Repeatable.
    #[arg(long, value_name = "KIND:VALUE")]
    permit: Vec<NameConstraint>,
    /// Exclude these names. Repeatable.
    #[arg(long, value_name = "KIND:VALUE")]
    exclude: Vec<NameConstraint>,
    /// Make no root, but a request for an issuing certificate, in this file, for another authority to sign; `-`
    /// is standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root_key", "permit", "exclude"])]
    csr_out: Option<PathBuf>,
    /// What that authority answered: the issuing certificate and those above it up to the root, in PEM.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["name", "url", "http_url", "key", "root_key", "permit", "exclude", "csr_out"]
    )]
    import: Option<PathBuf>,
}

pub(crate) async fn run(global: &Global, init_args: Init) -> Outcome {
    let Init { place, name, url, http_url, key, root_key, permit, exclude, csr_out, import: file } =
        init_args;
    let (keystore, folder) = (keystore(global)?, place.dir.clone());
    if let Some(file) = file {
        let certificates = input::certificates(&file)?;
        blocking(move || Ok(import(&folder, &certificates, &*keystore)?)).await?;
        return made(global, &place).await;
    }
    for uri in key.iter().chain(&root_key) {
        Holder::of(uri)?;
    }
    let new = NewAuthority {
        name: name.unwrap_or_default(),
        url,
        keys: key,
        root_key,
        http_url,
        database: place.database()?,
        name_constraints: NameConstraints { permitted: permit, excluded: exclude },
    };
    let Some(path) = csr_out else {
        blocking(move || Ok(init(&folder, &new, &*keystore)?)).await?;
        return made(global, &place).await;
    };
    let csr = blocking(move || Ok(request(&folder, &new, &*keystore)?)).await?;
    write_request(&csr, &path)?;
    output::note(format_args!(
        "next: have it signed as a CA, and enclasp ca init --dir {} --import CHAIN.pem",
        place.dir.display()
    ));
    Ok(())
}

/// Writes a request in PEM; `-` is standard output.
pub(super) fn write_request(der: &[u8], path: &Path) -> Outcome {
    let text = pem::encode("CERTIFICATE REQUEST", der);
    if path == Path::new("-") {
        return output::raw(text.as_bytes());
    }
    output::file(path, text)
}

/// How long the token of the first admin is good.
const FIRST_ADMIN: Duration = Duration::from_secs(3600);

async fn made(global: &Global, place: &Place) -> Outcome {
    let (authority, dir) = (place.open().await?, &place.dir);
    let (config, root) = (authority.config(), authority.root());
    let admin = TokenRequest {
        common_name: "admin".into(),
        subject_alt_names: Vec::new(),
        profile: "admin".into(),
        lifetime: FIRST_ADMIN,
    };
    let admin = authority.token(admin).await?;
    let root_file = dir.join(&config.root_certificate);
    if global.json {
        return output::json(&json!({
            "dir": dir,
            "name": config.name,
            "url": config.url.to_string(),
            "root_pem": root_file,
            "root_sha256": root.fingerprint_hex(),
            "root_key": config.root_key,
            "issuing_key": config.issuing_key,
            "admin_token": *admin.to_line()?,
        }));
    }
    output::note(format_args!("made the authority {} in {}", config.name, dir.display()));
    let root_key = config.root_key.as_ref().map_or_else(|| "elsewhere".to_owned(), ToString::to_string);
    let rows = [
        ("root", root_file.display().to_string()),
        ("SHA-256", root.fingerprint_hex()),
        ("root key", root_key),
        ("issuing key", config.issuing_key.to_string()),
        ("URL", config.url.to_string()),
        ("admin's token", admin.to_line()?.to_string()),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    output::note(format_args!(
        "the token is good once, until {}, for the first admin of the console: \
         enclasp enroll --identity admin --token-file - while it is served",
        output::time(admin.contents().expires)
    ));
    output::note(format_args!(
        "next: enclasp ca serve --dir {0}, and enclasp ca token --dir {0} --cn NAME",
        dir.display()
    ));
    Ok(())
}
