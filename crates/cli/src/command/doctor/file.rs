//! `enclasp doctor csr|cert|key|p12|crl FILE`: what is wrong with a file, and what of that can be mended.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;
use enclasp_doctor::Report;
use enclasp_doctor::file::{Examined, File, Kind, examine, public_key_in};
use enclasp_keystore::{KeyUri, KeystoreKind, durable};
use enclasp_pki::{Certificate, Purpose};
use serde::Serialize;
use zeroize::Zeroizing;

use super::conclude;
use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::{input, output};

/// The file, and whether to mend it.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// The file, in PEM or DER or what was meant to be that; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    fix: Fix,
}

/// Whether to write what can be mended, and where.
#[derive(clap::Args)]
pub(crate) struct Fix {
    /// Write what can be mended without the key, and say what cannot. The file itself stays as it is.
    #[arg(long)]
    fix: bool,
    /// Where to write it [default: FILE.fixed].
    #[arg(long, value_name = "FILE", requires = "fix")]
    out: Option<PathBuf>,
}

impl Fix {
    /// Whether anything of this was asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.fix
    }
}

/// A key in a keystore, or in a file.
#[derive(Clone)]
pub(crate) enum KeyOrFile {
    Uri(KeyUri),
    File(PathBuf),
}

impl std::str::FromStr for KeyOrFile {
    type Err = enclasp_keystore::Error;

    /// What begins like a key URI is one; everything else is a file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        if KeystoreKind::ALL.into_iter().any(|kind| Some(kind.name()) == scheme) {
            text.parse().map(Self::Uri)
        } else {
            Ok(Self::File(PathBuf::from(text)))
        }
    }
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor csr web.csr                        what is wrong, where, and what to do
  enclasp doctor csr web.csr --key soft:name=web    and whether it is for that key
  enclasp doctor csr web.csr --fix --out good.csr   writes what can be mended without the key")]
pub(crate) struct Csr {
    #[command(flatten)]
    target: Target,
    /// The key that the request should be for.
    #[arg(long, value_name = "URI|FILE")]
    key: Option<KeyOrFile>,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor cert web.pem --cacert root.pem --key soft:name=web
  enclasp doctor cert srv.pem --purpose server --host db.internal")]
pub(crate) struct Cert {
    #[command(flatten)]
    target: Target,
    /// The key that the certificate should be for.
    #[arg(long, value_name = "URI|FILE")]
    key: Option<KeyOrFile>,
    /// The roots that its chain should end at.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// What it should be good for [default: clients or servers].
    #[arg(long, value_name = "SIDE")]
    purpose: Option<Side>,
    /// The host name or address that it should be for.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Client,
    Server,
}

impl From<Side> for Purpose {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Server => Self::Server,
        }
    }
}

/// What a key file is looked at with.
#[derive(clap::Args)]
pub(crate) struct KeyFile {
    /// A file: the certificate that the key should be for.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// A file: the passphrase of the key [or the variable ENCLASP_KEY_PASSWORD].
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    fix: Fix,
}

impl KeyFile {
    /// Whether anything of this was asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.cert.is_some() || self.password_file.is_some() || self.fix.is_wanted()
    }
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor p12 web.p12                               how it is protected
  enclasp doctor p12 web.p12 --password-file passphrase    and what is inside")]
pub(crate) struct P12 {
    #[command(flatten)]
    target: Target,
    /// A file with the passphrase [or the variable ENCLASP_P12_PASSWORD].
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp doctor crl acme.crl --cacert issuing.pem
  enclasp doctor crl acme.crl --cacert issuing.pem --cert web.pem   and whether it is for that certificate")]
pub(crate) struct Crl {
    #[command(flatten)]
    target: Target,
    /// The certificate of its issuer.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The certificate that the list should be for.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
}

pub(crate) fn csr(global: &Global, csr: &Csr) -> Outcome {
    let public_key = public_key(global, csr.key.as_ref())?;
    look(global, Kind::Request, &csr.target, File { public_key: public_key.as_deref(), ..unknown() })
}

pub(crate) fn cert(global: &Global, cert: &Cert) -> Outcome {
    let public_key = public_key(global, cert.key.as_ref())?;
    let roots = certificates(cert.cacert.as_deref())?;
    look(
        global,
        Kind::Certificate,
        &cert.target,
        File {
            public_key: public_key.as_deref(),
            roots: &roots,
            purpose: cert.purpose.map(Purpose::from),
            host: cert.host.as_deref(),
            ..unknown()
        },
    )
}

pub(crate) fn key(global: &Global, path: PathBuf, key: KeyFile) -> Outcome {
    let certificates = certificates(key.cert.as_deref())?;
    let password = password(key.password_file.as_deref(), KEY_PASSWORD)?;
    look(
        global,
        Kind::Key,
        &Target { file: path, fix: key.fix },
        File {
            certificate: certificates.first(),
            password: password.as_ref().map(|password| password.as_str()),
            ..unknown()
        },
    )
}

pub(crate) fn p12(global: &Global, p12: &P12) -> Outcome {
    let password = password(p12.password_file.as_deref(), "ENCLASP_P12_PASSWORD")?;
    look(
        global,
        Kind::Pkcs12,
        &p12.target,
        File { password: password.as_ref().map(|password| password.as_str()), ..unknown() },
    )
}

pub(crate) fn crl(global: &Global, crl: &Crl) -> Outcome {
    let roots = certificates(crl.cacert.as_deref())?;
    let certificates = certificates(crl.cert.as_deref())?;
    look(
        global,
        Kind::RevocationList,
        &crl.target,
        File { roots: &roots, certificate: certificates.first(), ..unknown() },
    )
}

/// A file of which only the time is known.
fn unknown() -> File<'static> {
    File::new("", &[], SystemTime::now())
}

const KEY_PASSWORD: &str = "ENCLASP_KEY_PASSWORD";

/// The public key of a key in a keystore or a file.
fn public_key(global: &Global, key: Option<&KeyOrFile>) -> Outcome<Option<Vec<u8>>> {
    Ok(match key {
        None => None,
        Some(KeyOrFile::Uri(uri)) => Some(global.state()?.open_key(uri)?.info().spki.clone()),
        Some(KeyOrFile::File(path)) => {
            let password = password(None, KEY_PASSWORD)?;
            let bytes = Zeroizing::new(input::file(path)?);
            let found = public_key_in(&bytes, password.as_ref().map(|password| password.as_str()));
            let path = path.display();
            Some(found.ok_or_else(|| {
                Failure::new(format!("no key can be made out in {path}"))
                    .hint(format!("`enclasp doctor key {path}` says why"))
            })?)
        }
    })
}

fn certificates(path: Option<&Path>) -> Outcome<Vec<Certificate>> {
    path.map_or(Ok(Vec::new()), input::certificates)
}

/// The passphrase, if one was given; nobody is asked.
fn password(path: Option<&Path>, variable: &str) -> Outcome<Option<Zeroizing<String>>> {
    if path.is_none() && std::env::var_os(variable).is_none() {
        return Ok(None);
    }
    input::secret("passphrase", path, variable, "--password-file").map(Some)
}

/// Looks at a file with what is `known` besides, and prints what was found.
fn look(global: &Global, kind: Kind, target: &Target, known: File<'_>) -> Outcome {
    let Target { file: path, fix } = target;
    let bytes = Zeroizing::new(input::file(path)?);
    let name = path.display().to_string();
    let examined = examine(kind, &File { name: &name, bytes: &bytes, ..known });
    if !fix.fix {
        if examined.repair.is_some() {
            output::note(format_args!("--fix writes what can be mended without the key"));
        }
        return conclude(global, &examined.report);
    }
    let out = destination(path, fix)?;
    let written = examined.repair.as_ref().map(|repair| durable::replace(&out, &repair.bytes)).transpose()?;
    let fixed = Fixed {
        report: &examined.report,
        fixed: written.map(|()| &*out),
        done: examined.repair.as_ref().map_or(&[], |repair| &repair.done),
        unrepaired: &examined.unrepaired,
    };
    if global.json {
        output::json(&fixed)?;
    } else {
        output::raw(examined.report.to_string().as_bytes())?;
    }
    tell(&examined, &out);
    match &examined.unrepaired[..] {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(format!("not all could be mended: {first}"))),
    }
}

/// A report, and what came of `--fix`.
#[derive(Serialize)]
struct Fixed<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// The file that was written; none if there was nothing to mend, or nothing that could be.
    fixed: Option<&'a Path>,
    done: &'a [String],
    unrepaired: &'a [String],
}

fn tell(examined: &Examined, out: &Path) {
    match &examined.repair {
        Some(repair) => {
            output::note(format_args!("wrote {}:", out.display()));
            repair.done.iter().for_each(|line| output::note(format_args!("  {line}")));
        }
        None if examined.unrepaired.is_empty() => {
            output::note("there is nothing to mend; nothing was written")
        }
        None => output::note("nothing can be mended without the key; nothing was written"),
    }
    for line in &examined.unrepaired {
        output::note(format_args!("not mended: {line}"));
    }
}

/// Where the mended file goes: never over the one that was given.
fn destination(path: &Path, fix: &Fix) -> Outcome<PathBuf> {
    let out = match &fix.out {
        Some(out) => out.clone(),
        None if path == Path::new("-") => {
            return Err(Failure::usage("standard input has no name: say --out FILE, too"));
        }
        None => {
            let mut name = path.as_os_str().to_owned();
            name.push(".fixed");
            PathBuf::from(name)
        }
    };
    let same = out.canonicalize().is_ok_and(|out| path.canonicalize().is_ok_and(|path| path == out));
    if same {
        return Err(Failure::usage("--out is the file itself, which stays as it is: name another one"));
    }
    Ok(out)
}
