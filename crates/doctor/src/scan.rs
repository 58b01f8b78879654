//! Finding out what a server takes, by offering it less and less.
//!
//! A server's choice is in the clear in every version. So each question is one ClientHello, and the
//! answer is its ServerHello, HelloRetryRequest or alert; no handshake is completed.

use aws_lc_rs::rand;

use crate::wire::names::{group_name, scheme_name, suite_key_exchange, suite_name, suites, version_name};
use crate::wire::{KeyExchange, Side, Version, vector, version};
use crate::{Evidence, Observation};

/// What a ClientHello offers: one version, and the rest as lists in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The only version.
    pub version: Version,
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// Key exchange groups. In TLS 1.3 a key share is sent of the first one if that is x25519;
    /// otherwise the server has to ask for one.
    pub groups: Vec<u16>,
    /// Signature schemes.
    pub schemes: Vec<u16>,
}

const GROUPS: [u16; 12] =
    [0x001d, 0x11ec, 0x0017, 0x0018, 0x0019, 0x001e, 0x11eb, 0x11ed, 0x0100, 0x0101, 0x0102, 0x001a];

const SCHEMES: [u16; 15] = [
    0x0403, 0x0804, 0x0401, 0x0503, 0x0603, 0x0805, 0x0806, 0x0807, 0x0808, 0x0809, 0x080a, 0x080b, 0x0501,
    0x0601, 0x0201,
];

const X25519: u16 = 0x001d;

impl Offer {
    /// Everything that the version has.
    pub fn everything(version: Version) -> Self {
        let of_version = |suite: &u16| match version {
            version::TLS13 => suite >> 8 == 0x13,
            // Not the signals, and of older versions only what they have.
            version::TLS12 => suite >> 8 != 0x13 && *suite != 0x00ff && *suite != 0x5600,
            _ => suite_name(*suite).ends_with("_SHA") || suite_name(*suite).ends_with("_MD5"),
        };
        let suites = suites().filter(of_version).collect();
        Self { version, suites, groups: GROUPS.to_vec(), schemes: SCHEMES.to_vec() }
    }

    /// The ClientHello as a record. `server_name` is a host name to ask for.
    pub fn to_record(&self, server_name: Option<&str>) -> Vec<u8> {
        let numbers = |values: &[u16]| -> Vec<u8> { values.iter().flat_map(|v| v.to_be_bytes()).collect() };
        let is_tls13 = self.version == version::TLS13;
        let mut random = [0; 64];
        // Nothing is secret here; without randomness some servers answer the same.
        let _ = rand::fill(&mut random);
        let (random, share) = random.split_at(32);
        let mut extensions = Vec::new();
        let mut add = |kind: u16, body: Vec<u8>| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(vector(2, &body));
        };
        if let Some(name) = server_name {
            add(0, vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat()));
        }
        add(10, vector(2, &numbers(&self.groups)));
        add(11, vector(1, &[0]));
        if self.version >= version::TLS12 {
            add(13, vector(2, &numbers(&self.schemes)));
        }
        add(0xff01, vec![0]);
        if is_tls13 {
            add(43, vector(1, &self.version.to_be_bytes()));
            let share = if self.groups.first() == Some(&X25519) {
                [&X25519.to_be_bytes()[..], &vector(2, share)].concat()
            } else {
                Vec::new()
            };
            add(51, vector(2, &share));
        }
        let legacy = self.version.min(version::TLS12);
        let body = [
            &legacy.to_be_bytes()[..],
            random,
            &vector(1, if is_tls13 { random } else { &[] }),
            &vector(2, &numbers(&self.suites)),
            &[1, 0],
            &vector(2, &extensions),
        ]
        .concat();
        let message = [&[1][..], &vector(3, &body)].concat();
        [&[22, 3, 1][..], &vector(2, &message)].concat()
    }
}

/// What a server takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The versions, and of each the suites in the order of the server's choice.
    pub suites: Vec<(Version, Vec<u16>)>,
    /// Key exchange groups.
    pub groups: Vec<u16>,
    /// Schemes that the server signs with.
    pub schemes: Vec<u16>,
}

/// A server is asked no more often than this.
const MAX_QUESTIONS: usize = 120;

/// Asks a server for all that it takes. `ask` sends an offer on a new connection and returns what came
/// of it, or `None` if the server could not be reached.
pub fn scan(mut ask: impl FnMut(&Offer) -> Option<Observation>) -> Taken {
    let mut questions = 0;
    let mut ask = |offer: &Offer| {
        questions += 1;
        if questions > MAX_QUESTIONS { None } else { ask(offer) }
    };
    let mut taken = Taken::default();
    for version in [version::TLS13, version::TLS12, version::TLS11, version::TLS10] {
        let mut offer = Offer::everything(version);
        let mut suites = Vec::new();
        while let Some(suite) = ask(&offer).and_then(|seen| chosen_suite(&seen, &offer)) {
            offer.suites.retain(|other| *other != suite);
            suites.push(suite);
        }
        if !suites.is_empty() {
            taken.suites.push((version, suites));
        }
    }
    let Some((version, suites)) = taken.suites.first().cloned() else { return taken };
    let is_tls13 = version == version::TLS13;
    let elliptic = |suite: &u16| is_tls13 || suite_key_exchange(*suite) == KeyExchange::Ecdhe;
    let suites: Vec<u16> = suites.into_iter().filter(elliptic).collect();
    let mut offer = Offer { version, suites: suites.clone(), ..Offer::everything(version) };
    while !offer.suites.is_empty()
        && let Some(group) = ask(&offer).and_then(|seen| chosen_group(&seen, &offer))
    {
        offer.groups.retain(|other| *other != group);
        taken.groups.push(group);
    }
    for scheme in SCHEMES {
        let offer = Offer { version, suites: suites.clone(), groups: GROUPS.to_vec(), schemes: vec![scheme] };
        let signs = |seen: Observation| {
            let by = seen.server_signature.as_ref().and_then(|signature| signature.scheme);
            let chosen = chosen_suite(&seen, &offer).is_some();
            if is_tls13 { chosen && seen.refusal_by(Side::Server).is_none() } else { by == Some(scheme) }
        };
        if !suites.is_empty() && ask(&offer).is_some_and(signs) {
            taken.schemes.push(scheme);
        }
    }
    taken
}

fn chosen_suite(seen: &Observation, offer: &Offer) -> Option<u16> {
    let hello = seen.server_hello.as_ref().or(seen.retry.as_ref())?;
    (hello.version == offer.version && offer.suites.contains(&hello.suite)).then_some(hello.suite)
}

fn chosen_group(seen: &Observation, offer: &Offer) -> Option<u16> {
    let hello = seen.server_hello.as_ref().or(seen.retry.as_ref())?;
    let exchange = seen.server_key_exchange.as_ref();
    let group = hello.group.or_else(|| exchange.and_then(|exchange| exchange.group))?;
    offer.groups.contains(&group).then_some(group)
}

impl Taken {
    /// For people.
    pub fn evidence(&self) -> Vec<Evidence> {
        let join = |names: Vec<String>| names.join(", ");
        let mut evidence: Vec<Evidence> = self
            .suites
            .iter()
            .map(|(version, suites)| {
                let names = join(suites.iter().map(|suite| suite_name(*suite)).collect());
                Evidence::new(format!("server takes in {}", version_name(*version)), names)
            })
            .collect();
        if evidence.is_empty() {
            evidence.push(Evidence::new("server takes", "none of TLS 1.0 to 1.3"));
        }
        if !self.groups.is_empty() {
            let names = join(self.groups.iter().map(|group| group_name(*group)).collect());
            evidence.push(Evidence::new("server takes groups", names));
        }
        if !self.schemes.is_empty() {
            let names = join(self.schemes.iter().map(|scheme| scheme_name(*scheme)).collect());
            evidence.push(Evidence::new("server signs with", names));
        }
        evidence
    }
}
