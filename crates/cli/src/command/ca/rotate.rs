//! `enclasp ca rotate` and `enclasp ca show`: the issuing certificates of an authority, one after the other.

use std::path::PathBuf;

use enclasp_ca::Rotation;
use enclasp_identity::Holder;
use enclasp_keystore::KeyUri;
use enclasp_pki::Certificate;
use serde_json::json;

use super::init::write_request;
use super::{Place, keystore};
use crate::args::Global;
use crate::failure::Outcome;
use crate::{input, output};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  enclasp ca rotate --dir ca
  enclasp ca rotate --dir ca --key tpm:               from now on in the TPM
  enclasp ca rotate --dir ca --root                   a new root, too
  enclasp ca rotate --dir ca --csr-out acme.csr       if another authority signs
  enclasp ca rotate --dir ca --import chain.pem

If it is interrupted, nothing has changed, and the same command goes on.")]
pub(crate) struct Rotate {
    #[command(flatten)]
    place: Place,
    /// Make a new root as well. Devices learn of it when they renew.
    #[arg(long)]
    root: bool,
    /// The keystore for the new keys, as for `ca init` [default: that of the present ones].
    #[arg(long, value_name = "URI")]
    key: Option<KeyUri>,
    /// Make a request for another authority to sign, in this file; `-` is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    csr_out: Option<PathBuf>,
    /// What that authority answered: the issuing certificate and those above it up to the root, in PEM.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "key", "csr_out"])]
    import: Option<PathBuf>,
}

pub(crate) async fn rotate(global: &Global, rotate: Rotate) -> Outcome {
    let Rotate { place, root, key: keys, csr_out, import } = rotate;
    if let Some(uri) = &keys {
        Holder::of(uri)?;
    }
    let (authority, keystore) = (place.open().await?, keystore(global)?);
    if let Some(path) = csr_out {
        let csr = authority.request_rotation(keystore, keys).await?;
        write_request(&csr, &path)?;
        output::note(format_args!(
            "next: have it signed as a CA, and enclasp ca rotate --dir {} --import CHAIN.pem",
            place.dir.display()
        ));
        return Ok(());
    }
    let issuing = match import {
        Some(file) => authority.import_rotation(keystore, &input::certificates(&file)?).await?,
        None => authority.rotate(keystore, &Rotation { root, keys }).await?,
    };
    authority.close().await;
    if !global.json {
        output::note(format_args!("the issuing certificate is {} now", issuing.describe()));
        output::note("start `enclasp ca serve` again: until then it issues with the one of before");
        return Ok(());
    }
    show(global, &place).await
}

/// Prints what an authority is, and which certificates it has issued and issues with.
pub(crate) async fn show(global: &Global, place: &Place) -> Outcome {
    let authority = place.open().await?;
    let (config, root) = (authority.config(), authority.root());
    let former = authority.former_issuers().await?;
    let state = |issuer: &Certificate| {
        let sha256 = issuer.fingerprint_hex();
        if issuer == authority.issuing() {
            "issuing"
        } else if former.iter().any(|(one, _)| one == issuer) {
            "former: signs CRLs and OCSP"
        } else if config.former_issuers.iter().any(|one| one.sha256 == sha256) {
            "retired"
        } else {
            "another replica's"
        }
    };
    let key_of = |issuer: &Certificate| {
        let former = config.former_issuers.iter().find(|one| one.sha256 == issuer.fingerprint_hex());
        if issuer == authority.issuing() { Some(&config.issuing_key) } else { former.map(|one| &one.key) }
    };
    let issuers = authority.issuers().await?;
    if global.json {
        let issuers = issuers.iter().map(|issuer| {
            json!({
                "subject": issuer.subject().to_string(),
                "sha256": issuer.fingerprint_hex(),
                "state": state(issuer).split(':').next(),
                "not_after": output::time(issuer.not_after()),
                "key": key_of(issuer),
            })
        });
        return output::json(&json!({
            "name": config.name,
            "url": config.url.to_string(),
            "database": authority.database(),
            "root_pem": place.dir.join(&config.root_certificate),
            "root_sha256": root.fingerprint_hex(),
            "root_key": config.root_key,
            "issuing_pem": place.dir.join(&config.issuing_certificate),
            "issuers": issuers.collect::<Vec<_>>(),
        }));
    }
    let mut rows = vec![["CERTIFICATE", "STATE", "UNTIL", "KEY", "SHA-256"].map(str::to_owned).to_vec()];
    let row = |certificate: &Certificate, state: &str, key: Option<&KeyUri>| {
        let key = key.map_or_else(|| "elsewhere".to_owned(), ToString::to_string);
        let until = output::time(certificate.not_after());
        vec![certificate.name(), state.to_owned(), until, key, certificate.fingerprint_hex()]
    };
    rows.push(row(root, "root", config.root_key.as_ref()));
    rows.extend(issuers.iter().map(|issuer| row(issuer, state(issuer), key_of(issuer))));
    output::table(&rows)
}
