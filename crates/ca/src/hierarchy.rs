//! The issuing certificate and those above it: read from files, and checked whether they fit.

use std::path::Path;
use std::time::SystemTime;

use enclasp_keystore::durable;
use enclasp_pki::{
    Certificate, DistinguishedName, NameConstraints, SubjectAltName, certificates_from, order_chain, rfc3339,
};

use crate::own_certificate::names;
use crate::{Config, Error, Result};

/// The longest certificate file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The certificates of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) issuing: Certificate,
    /// What peers need on the way from it to a root that they trust, beside the two others: the CAs between, and
    /// what vouches for the root to those who know the one before it only.
    pub(crate) above: Vec<Certificate>,
    pub(crate) root: Certificate,
}

impl Hierarchy {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`Error::Config`] if one is not there, or they do not belong together.
    pub(crate) fn read(folder: &Path, config: &Config) -> Result<Self> {
        let path = folder.join(&config.issuing_certificate);
        let failed = |reason: String| Error::Config { path: path.display().to_string(), reason };
        let root = certificates(&folder.join(&config.root_certificate))?.swap_remove(0);
        let mut above = certificates(&path)?;
        let issuing = above.remove(0);
        let known = [vec![root.clone()], above.clone()].concat();
        let chain = order_chain(&issuing, &known);
        if chain.len() > 1 && chain.last() == Some(&root) {
            return Ok(Self { issuing, above, root });
        }
        let top = chain.last().unwrap_or(&issuing);
        let reason = top.verify_signed_by(&root).err().map_or_else(String::new, |e| format!(": {e}"));
        Err(failed(format!("it was not issued by {}{reason}", config.root_certificate)))
    }

    /// Finds in `certificates`, which somebody brought in whatever order, the one for the key `spki`, and its way
    /// to a root, and checks that an authority with these settings can issue with it.
    ///
    /// # Errors
    /// [`Error::Unfit`] with what is wrong, and what to do.
    pub(crate) fn imported(
        certificates: &[Certificate],
        spki: &[u8],
        config: &Config,
        now: SystemTime,
    ) -> Result<Self> {
        let Some(issuing) = certificates.iter().find(|one| one.spki() == spki) else {
            let reason =
                format!("none of the {} certificates is for the key that was made", certificates.len());
            return unfit(reason, "have the request of `--csr-out` signed, no other");
        };
        let mut chain = order_chain(issuing, certificates);
        let top = chain.last().unwrap_or(issuing).clone();
        if !top.is_self_issued() {
            let reason = match certificates.iter().find(|one| one.subject() == top.issuer()) {
                Some(_) => format!(
                    "{} was not signed with the key of the {} that is there",
                    top.name(),
                    top.issuer()
                ),
                None => format!("{} was issued by {}, which is missing", top.name(), top.issuer()),
            };
            return unfit(reason, "bring all certificates from the new one up to the root");
        }
        if chain.len() == 1 {
            return unfit(
                format!("{} is signed with its own key", issuing.name()),
                "the root has to sign it",
            );
        }
        top.verify_signed_by(&top)?;
        for (below, ca) in chain.iter().enumerate() {
            let name = ca.name();
            if !ca.is_ca() {
                return unfit(format!("{name} is not a CA"), "it needs basicConstraints with CA:TRUE");
            }
            if !ca.may_sign_certificates_and_crls() {
                let reason = format!("the key usage of {name} does not let it sign certificates and CRLs");
                return unfit(reason, "it needs keyUsage with keyCertSign and cRLSign");
            }
            if ca.path_length().is_some_and(|most| usize::from(most) < below) {
                let most = ca.path_length().unwrap_or(0);
                let reason =
                    format!("the path length of {name} is {most}, and {below} CAs would be below it");
                return unfit(reason, "a CA that may sign for CAs has to sign it");
            }
            if ca.not_after() <= now {
                return unfit(
                    format!("{name} expired at {}", rfc3339(ca.not_after())),
                    "it has to be renewed",
                );
            }
            if ca.not_before() > now {
                let reason = format!("{name} is not valid before {}", rfc3339(ca.not_before()));
                return unfit(reason, "wait, or check the clock of this machine");
            }
        }
        let root = chain.pop().unwrap_or(top);
        let hierarchy = Self { issuing: chain.remove(0), above: chain, root };
        hierarchy.check_settings(config)?;
        Ok(hierarchy)
    }

    /// Checks that the name constraints of these certificates allow what the settings say.
    ///
    /// # Errors
    /// [`Error::Unfit`].
    pub(crate) fn check_settings(&self, config: &Config) -> Result<()> {
        for (of, constraints) in self.constraints() {
            check_settings(constraints, config, &of)?;
        }
        Ok(())
    }

    /// Checks that all of these CAs may certify these names.
    ///
    /// # Errors
    /// [`Error::Constrained`] with the first that may not.
    pub(crate) fn check(&self, subject: &DistinguishedName, names: &[SubjectAltName]) -> Result<()> {
        for (ca, constraints) in self.constraints() {
            constraints.check(subject, names).map_err(|reason| Error::Constrained { ca, reason })?;
        }
        Ok(())
    }

    /// From the issuing certificate up to the root.
    pub(crate) fn chain(&self) -> Vec<Certificate> {
        let mut chain = vec![self.issuing.clone()];
        chain.extend(self.above.iter().cloned());
        chain.push(self.root.clone());
        chain
    }

    /// As they are written to the file of the issuing certificate.
    pub(crate) fn issuing_pem(&self) -> String {
        std::iter::once(&self.issuing).chain(&self.above).map(Certificate::to_pem).collect()
    }

    fn constraints(&self) -> impl Iterator<Item = (String, &NameConstraints)> {
        let all = [&self.issuing].into_iter().chain(&self.above).chain([&self.root]);
        all.filter_map(|ca| Some((ca.name(), ca.name_constraints()?)))
    }
}

/// Checks that an authority with these settings can do its work under name constraints.
///
/// # Errors
/// [`Error::Unfit`].
pub(crate) fn check_settings(constraints: &NameConstraints, config: &Config, of: &str) -> Result<()> {
    let server = names(&config.url)?;
    let nobody = DistinguishedName::default();
    if let Err(reason) = constraints.check(&nobody, &server) {
        let reason = format!("the name constraints of {of} forbid the authority's own server: {reason}");
        return unfit(
            reason,
            "permit the names of `--url`; a URL of this machine has localhost, 127.0.0.1 and ::1",
        );
    }
    for profile in config.profile_names().map(|name| config.profile(name)) {
        let profile = profile?;
        for example in profile.names.iter().filter_map(crate::NameRule::example) {
            if let Err(reason) = constraints.check(&nobody, &[example]) {
                let name = profile.name();
                let reason =
                    format!("the name constraints of {of} forbid what the profile {name} says: {reason}");
                return unfit(reason, "change the profile in authority.toml, or the constraints");
            }
        }
    }
    Ok(())
}

pub(crate) fn unfit<T>(reason: String, hint: &'static str) -> Result<T> {
    Err(Error::Unfit { reason, hint })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let error = |reason: String| Error::Config { path: path.display().to_string(), reason };
    let bytes = durable::read(path, MAX_FILE)?.ok_or_else(|| error("it is missing".into()))?;
    certificates_from(&bytes).map_err(|e| error(e.to_string()))
}
