//! `enclasp csr`: certification requests.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Subcommand;
use enclasp_keystore::{KeyUri, SignContext};
use enclasp_pki::{DistinguishedName, SubjectAltName, create_csr, pem};
use serde_json::json;

use crate::args::Global;
use crate::failure::{Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
pub(crate) struct Csr {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a certification request (PKCS#10) and have the key sign it.
    #[command(after_help = "Examples:
  enclasp csr create --key soft:name=web --subject CN=web --san dns:localhost --out web.csr
  enclasp csr create --key soft:name=web --subject \"CN=web,OU=Ops,O=Acme,C=CH\" --san ip:10.0.0.7")]
    Create {
        /// The key that the certificate shall be for.
        #[arg(long, value_name = "URI")]
        key: KeyUri,
        /// Subject, as RFC 4514 writes it: CN=web,OU=Ops,O=Acme,C=CH (also ST, L, emailAddress).
        #[arg(long, value_name = "NAME")]
        subject: DistinguishedName,
        /// Subject alternative name: dns:HOST, ip:ADDRESS, uri:URI or email:ADDRESS. Repeatable.
        #[arg(long = "san", value_name = "KIND:VALUE")]
        sans: Vec<SubjectAltName>,
        /// File to write [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write DER instead of PEM.
        #[arg(long)]
        der: bool,
    },
}

pub(crate) fn run(global: &Global, csr: Csr) -> Outcome {
    let Verb::Create { key, subject, sans, out, der } = csr.verb;
    if global.json && out.is_none() {
        return Err(Failure::usage(
            "--json needs --out: without it the request itself goes to standard output",
        ));
    }
    let opened = global.state()?.open_key(&key).map_err(|e| {
        let absent = matches!(e, enclasp_identity::Error::Keystore(enclasp_keystore::Error::Absent { .. }));
        let failure = Failure::from(e);
        if absent { failure.hint(format!("make it first: `enclasp key create {key}`")) } else { failure }
    })?;
    let ctx = SignContext::new(format!("certification request for {subject}"))
        .with_deadline(Instant::now() + Duration::from_secs(60));
    let request = create_csr(&*opened, &subject, &sans, &ctx)?;
    let bytes = if der { request } else { pem::encode("CERTIFICATE REQUEST", &request).into_bytes() };
    let Some(path) = out else { return output::raw(&bytes) };
    output::file(&path, &bytes)?;
    if global.json {
        return output::json(&json!({ "file": path, "key": key, "subject": subject.to_string() }));
    }
    output::note(format_args!("wrote {} for {subject}, signed by `{key}`", path.display()));
    Ok(())
}
