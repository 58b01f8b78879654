//! What can go wrong in an authority, told apart by what its operator can do about it.

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the authority did not do what its operator asked for. What it refuses to a device is told to
/// the device, and is no error here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("there is an authority in {dir} already")]
    Exists { dir: String },
    #[error("there is no authority in {dir}")]
    Absent { dir: String },
    /// Records and certificates that do not belong together.
    #[error("{database} holds the records of another authority, whose root has the SHA-256 {root}")]
    OtherAuthority { database: String, root: String },
    #[error("no certificate that is valid now has the serial number or the subject `{what}`")]
    NotIssued { what: String },
    #[error("there are no records of an authority in {database}")]
    EmptyDatabase { database: String },
    #[error("the records are in {database} already")]
    Moved { database: String },
    /// It would begin anew in another database.
    #[error("{database} has no records, and those of this authority are in {records}")]
    NotMoved { database: String, records: String },
    /// It has joined, and the root's key is elsewhere.
    #[error("the root's key is not at this replica")]
    NoRootKey,
    /// Certificates that somebody brought.
    #[error("this is no issuing certificate for the authority: {reason}")]
    Unfit { reason: String, hint: &'static str },
    /// Name constraints of a CA.
    #[error("{ca} may not certify these names: {reason}")]
    Constrained { ca: String, reason: String },
    #[error("the authority in {dir} waits for its certificate from another one")]
    Requested { dir: String },
    #[error("no certificate was asked for")]
    NotRequested,
    /// A rotation of another kind is under way, or of another process.
    #[error("another rotation of the issuing certificate is under way")]
    Rotating,
    #[error("the audit log {chain} is broken at record {position}: {reason}")]
    Audit { chain: String, position: i64, reason: String },
    #[error("nothing with the id {id} waits for approval")]
    NotWaiting { id: String },
    #[error("the replica {id} was not let join")]
    TurnedAway { id: String },
    #[error("cannot read {path}: {reason}")]
    Config { path: String, reason: String },
    /// Something that was asked for breaks a rule.
    #[error("{what} cannot be {value}: {reason}")]
    Setting { what: &'static str, value: String, reason: String },
    #[error("there is no profile `{name}`: there are {known}")]
    NoProfile { name: String, known: String },
    /// A rule of a profile.
    #[error("the profile {profile} does not allow {what}: it allows {allowed}")]
    NotAllowed { profile: String, what: String, allowed: String },
    #[error("another process is making an authority in {dir}")]
    Busy { dir: String },
    #[error("the system gave no random bytes")]
    Random,
    #[error("the {certificate} certificate does not carry the public key of `{key}`")]
    WrongKey { certificate: &'static str, key: String },
    #[error("cannot use the issuing key: {source}")]
    IssuingKey { source: enclasp_keystore::Error },
    /// Whoever has a copy can issue without a record.
    #[error("the issuing key `{key}` is not vouched for by its keystore: there may be copies of it")]
    Copied { key: String },
    #[error("cannot {operation} in the authority's database: {source}")]
    Database { operation: &'static str, source: sqlx::Error },
    #[error("the authority's database is of version {found}, and this program knows {known}")]
    NewerDatabase { found: usize, known: usize },
    /// A row that this program did not write like that.
    #[error("the authority's database holds a record that makes no sense: {reason}")]
    Record { reason: String },
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: String, reason: String },
    #[error("a task of the authority stopped: {reason}")]
    Task { reason: String },
    #[error(transparent)]
    Keystore(#[from] enclasp_keystore::Error),
    #[error(transparent)]
    Pki(#[from] enclasp_pki::Error),
    #[error(transparent)]
    Tls(#[from] enclasp_tls::Error),
    #[error(transparent)]
    Enroll(#[from] enclasp_enroll::Error),
}

impl Error {
    pub(crate) fn database(operation: &'static str, source: sqlx::Error) -> Self {
        Self::Database { operation, source }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exists { .. } => "choose another folder with `--dir`".into(),
            Self::Absent { dir } => format!("`enclasp ca init --dir {dir} --name NAME` makes one"),
            Self::WrongKey { .. } => {
                "authority.toml names another key than the one that was certified; restore the right one"
                    .into()
            }
            Self::IssuingKey { source: enclasp_keystore::Error::Absent { .. } } => {
                "put its keystore back; if it is lost, docs/authority.md says what a disaster leaves".into()
            }
            Self::IssuingKey { source } => return source.hint(),
            Self::Copied { .. } => "an issuing key is made by `enclasp ca init`, in the keystore that it \
                 stays in; the one of before has to be put back"
                .into(),
            Self::Database { .. } => "check that the database runs and lets this user in; in the case of \
                 authority.db, its space, owner and permissions"
                .into(),
            Self::EmptyDatabase { .. } => {
                "`enclasp ca migrate --from sqlite` brings the records of an authority there".into()
            }
            Self::NotMoved { .. } => "`enclasp ca migrate --from sqlite` moves them".into(),
            Self::NoRootKey => "do it where `enclasp ca init` made the root's key; if it is another authority's, with `--csr-out`".into(),
            Self::Unfit { hint, .. } => (*hint).into(),
            Self::Constrained { .. } => "ask for other names, or for a CA that may certify these".into(),
            Self::Requested { .. } => "`enclasp ca init --import FILE` goes on; to begin anew, remove requested.toml from the \
                 folder, and the keys that it names"
                .into(),
            Self::NotRequested => "`--csr-out FILE` makes the key and the request".into(),
            Self::Rotating => "finish it with the same command; to give it up, remove rotating.toml from the \
                 folder, and the key that it names"
                .into(),
            Self::NotIssued { .. } => "`enclasp ca list` lists them".into(),
            Self::NotWaiting { .. } => "`enclasp ca pending` lists those who wait".into(),
            Self::NotAllowed { .. } => "take another profile, or change its rules in authority.toml".into(),
            Self::TurnedAway { .. } => {
                "remove its folder and its keys, and ask again if that was a mistake".into()
            }
            Self::NewerDatabase { .. } => "a newer Enclasp has used it: use that one".into(),
            Self::Listen { .. } => "another program may listen there; choose another `--listen`".into(),
            Self::Keystore(e) => return e.hint(),
            Self::Pki(e) => return e.hint(),
            Self::Tls(e) => return e.hint(),
            Self::Enroll(e) => return e.hint(),
            Self::Config { .. }
            | Self::Setting { .. }
            | Self::NoProfile { .. }
            | Self::Busy { .. }
            | Self::OtherAuthority { .. }
            | Self::Moved { .. }
            | Self::Audit { .. }
            | Self::Random
            | Self::Record { .. }
            | Self::Task { .. } => return None,
        })
    }
}
