use std::time::{Duration, SystemTime};

use enclasp_keystore::{Algorithm, Key, Scheme};
use enclasp_pki::{
    Certificate, DEFAULT_ROOT_LIFETIME, DistinguishedName, Error, Intermediate, Issuer, Leaf, Profile,
    Purpose, certificates_from, create_root, pem,
};

use crate::common::{Authority, Bench, DAY, Damaged, RsaKey, context, name, new_year};

fn leaf<'a>(profile: &'a Profile, subject: &'a DistinguishedName, key: &'a dyn Key) -> Leaf<'a> {
    Leaf { profile, subject, subject_alt_names: &[], spki: &key.info().spki, lifetime: None }
}

#[test]
fn an_issuer_refuses_what_it_should_not_sign() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let key = bench.key("web", Algorithm::P256);
    let (profile, web, nobody) = (Profile::client(), name("CN=web"), name(""));
    let issue = |leaf: Leaf<'_>, now| authority.issuer().issue(&leaf, now, &context()).unwrap_err();

    let error = issue(leaf(&profile, &nobody, &*key), new_year());
    assert!(error.to_string().contains("would name nobody"), "{error}");
    let zero = Some(Duration::from_millis(900));
    let error = issue(Leaf { lifetime: zero, ..leaf(&profile, &web, &*key) }, new_year());
    assert!(error.to_string().contains("lifetime is zero"), "{error}");
    let error = issue(leaf(&profile, &web, &*key), new_year() + 6 * 365 * DAY);
    assert!(error.to_string().contains("CN=Acme Issuing,O=Acme has expired"), "{error}");
    let error = issue(leaf(&profile, &web, &*key), SystemTime::UNIX_EPOCH);
    assert!(error.to_string().contains("within the years"), "{error}");
    let error = issue(Leaf { spki: b"0", ..leaf(&profile, &web, &*key) }, new_year());
    assert!(matches!(error, Error::Malformed { .. }), "{error:?}");

    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out key.pem");
    bench.openssl("pkey -in key.pem -pubout -outform DER -out weak.der");
    let error = issue(Leaf { spki: &bench.read("weak.der"), ..leaf(&profile, &web, &*key) }, new_year());
    assert!(matches!(error, Error::Weak { .. }), "{error:?}");

    let below = Intermediate {
        subject: &name("CN=Below"),
        spki: &key.info().spki,
        lifetime: DAY,
        path_length: Some(0),
        name_constraints: None,
    };
    let error = authority.issuer().issue_intermediate(&below, new_year(), &context()).unwrap_err();
    assert!(error.to_string().contains("may not sign for other CAs"), "{error}");
}

#[test]
fn an_issuer_is_a_ca_with_its_own_key() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let key = bench.key("web", Algorithm::P256);
    let error = Issuer::new(authority.root.clone(), &*key).err().unwrap();
    assert!(error.to_string().contains("public keys differ"), "{error}");
    let certificate = authority.issue(&*key, &Profile::client());
    let error = Issuer::new(certificate, &*key).err().unwrap();
    assert!(error.to_string().contains("cannot issue with CN=web,O=Acme: it is not a CA"), "{error}");
}

#[test]
fn a_wrong_signature_never_leaves() {
    let bench = Bench::new();
    let key = bench.key("root", Algorithm::P256);
    let subject = name("CN=Acme Root");
    let root = create_root(&*key, &subject, DEFAULT_ROOT_LIFETIME, new_year(), &context()).unwrap();
    let damaged = Damaged(key);
    assert!(create_root(&damaged, &subject, DEFAULT_ROOT_LIFETIME, new_year(), &context()).is_err());
    let issuer = Issuer::new(root, &damaged).unwrap();
    let error =
        issuer.issue(&leaf(&Profile::client(), &subject, &damaged), new_year(), &context()).unwrap_err();
    assert!(error.to_string().contains("does not verify"), "{error}");
}

#[test]
fn roots_need_a_name_and_a_lifetime_within_reason() {
    let bench = Bench::new();
    let key = bench.key("root", Algorithm::P256);
    let root = |subject: &str, lifetime| create_root(&*key, &name(subject), lifetime, new_year(), &context());
    assert!(matches!(root("", DAY), Err(Error::NotIssued { .. })));
    assert!(matches!(root("CN=Root", Duration::ZERO), Err(Error::NotIssued { .. })));
    assert!(matches!(root("CN=Root", Duration::MAX), Err(Error::NotIssued { .. })));
    assert!(matches!(root("CN=Root", 3_000_000 * DAY), Err(Error::NotIssued { .. })));
}

#[test]
fn lifetimes_are_cut_to_the_profile_and_to_the_issuer() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let key = bench.key("web", Algorithm::P256);
    let (profile, subject) = (Profile::client(), name("CN=web"));
    let issue = |lifetime, now| {
        let leaf = Leaf { lifetime, ..leaf(&profile, &subject, &*key) };
        authority.issuer().issue(&leaf, now, &context()).unwrap()
    };
    let now = new_year();
    assert_eq!(issue(None, now).not_before(), now - Duration::from_secs(60));
    assert_eq!(issue(None, now).not_after(), now + profile.default_lifetime);
    assert_eq!(issue(Some(DAY), now).not_after(), now + DAY);
    assert_eq!(issue(Some(365 * DAY), now).not_after(), now + profile.max_lifetime);
    let end = authority.issuing.not_after();
    assert_eq!(end, now + 5 * 365 * DAY);
    assert_eq!(issue(None, end - DAY).not_after(), end);
}

#[test]
fn serial_numbers_are_random_positive_and_short_enough() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::Ed25519);
    let key = bench.key("web", Algorithm::P256);
    let certificates: Vec<_> = (0..64).map(|_| authority.issue(&*key, &Profile::client())).collect();
    let mut serials: Vec<_> = certificates.iter().map(Certificate::serial).collect();
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), certificates.len());
    assert!(serials.iter().all(|serial| (28..=32).contains(&serial.len())), "{serials:?}");
    bench.write("x.pem", certificates[0].to_pem());
    let shown = bench.openssl("x509 -in x.pem -noout -serial");
    assert_eq!(shown.trim().to_ascii_lowercase(), format!("serial={}", certificates[0].serial()));
    // As DER integers they are positive: OpenSSL would show a minus sign.
    for certificate in &certificates {
        bench.write("x.pem", certificate.to_pem());
        assert!(!bench.openssl("x509 -in x.pem -noout -serial").contains('-'));
    }
}

#[test]
fn openssl_verifies_the_whole_chain() {
    let bench = Bench::new();
    for (algorithm, prefix) in [(Algorithm::P256, "a"), (Algorithm::P384, "b"), (Algorithm::Ed25519, "c")] {
        let authority = Authority::new(&bench, prefix, "Acme", algorithm);
        bench.write("root.pem", authority.root.to_pem());
        bench.write("issuing.pem", authority.issuing.to_pem());
        let key = bench.key(&format!("{prefix}-web"), algorithm);
        for (profile, good, bad) in
            [(Profile::client(), "client", "server"), (Profile::server(), "server", "client")]
        {
            bench.write("leaf.pem", authority.issue(&*key, &profile).to_pem());
            let verify = "-x509_strict -attime 1767300000 -CAfile root.pem -untrusted issuing.pem leaf.pem";
            assert!(bench.openssl(&format!("verify -purpose ssl{good} {verify}")).contains("leaf.pem: OK"));
            let purposes = bench.openssl("x509 -in leaf.pem -noout -purpose");
            let says = |line: String| purposes.lines().any(|found| found == line);
            assert!(says(format!("SSL {good} : Yes")) && says(format!("SSL {bad} : No")), "{purposes}");
        }
    }
}

#[test]
fn extensions_are_what_the_profile_says() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let key = bench.key("web", Algorithm::P256);
    let text = |certificate: &Certificate| {
        bench.write("x.pem", certificate.to_pem());
        let text = bench.openssl("x509 -in x.pem -noout -text -nameopt RFC2253");
        text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
    };
    let both = Profile {
        name: "both".into(),
        extended_key_usages: vec![Purpose::Client.into(), Purpose::Server.into()],
        ..Profile::client()
    };
    let leaf_text = text(&authority.issue(&*key, &both));
    for expected in [
        "Version: 3 (0x2)",
        "Issuer: CN=Acme Issuing,O=Acme",
        "Subject: CN=web,O=Acme",
        "X509v3 Basic Constraints: critical\nCA:FALSE",
        "X509v3 Key Usage: critical\nDigital Signature\n",
        "X509v3 Extended Key Usage:\nTLS Web Client Authentication, TLS Web Server Authentication",
        "X509v3 Subject Alternative Name:\nDNS:localhost",
        "X509v3 Subject Key Identifier:",
        "X509v3 Authority Key Identifier:",
        "Not Before: Dec 31 23:59:00 2025 GMT",
    ] {
        assert!(leaf_text.contains(expected), "{expected}: {leaf_text}");
    }
    let issuing_text = text(&authority.issuing);
    for expected in [
        "X509v3 Basic Constraints: critical\nCA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\nCertificate Sign, CRL Sign\n",
    ] {
        assert!(issuing_text.contains(expected), "{expected}: {issuing_text}");
    }
    assert!(text(&authority.root).contains("X509v3 Basic Constraints: critical\nCA:TRUE\n"));

    let sans = ["dns:localhost".parse().unwrap()];
    let nobody = name("");
    let unnamed = Leaf { subject_alt_names: &sans, ..leaf(&both, &nobody, &*key) };
    let unnamed = authority.issuer().issue(&unnamed, new_year(), &context()).unwrap();
    assert!(text(&unnamed).contains("X509v3 Subject Alternative Name: critical\nDNS:localhost"));
    assert_eq!(unnamed.name(), "dns:localhost");
}

#[test]
fn rsa_keys_are_certified_and_certify() {
    let bench = Bench::new();
    let key = RsaKey::new(&[Scheme::RsaPssSha256]);
    let root =
        create_root(&key, &name("CN=RSA Root"), DEFAULT_ROOT_LIFETIME, new_year(), &context()).unwrap();
    root.verify_signed_by(&root).unwrap();
    let issuer = Issuer::new(root.clone(), &key).unwrap();
    let certificate =
        issuer.issue(&leaf(&Profile::client(), &name("CN=web"), &key), new_year(), &context()).unwrap();
    assert_eq!(certificate.algorithm().unwrap(), Algorithm::Rsa);
    bench.write("root.pem", root.to_pem());
    bench.write("leaf.pem", certificate.to_pem());
    bench.openssl("verify -x509_strict -attime 1767300000 -purpose sslclient -CAfile root.pem leaf.pem");
}

#[test]
fn times_beyond_2049_are_right() {
    let bench = Bench::new();
    let key = bench.key("root", Algorithm::P256);
    let root = create_root(&*key, &name("CN=Root"), 30 * 365 * DAY, new_year(), &context()).unwrap();
    assert_eq!(root.not_after(), new_year() + 30 * 365 * DAY);
    bench.write("root.pem", root.to_pem());
    let text = bench.openssl("x509 -in root.pem -noout -enddate");
    assert!(text.contains("Dec 25 00:00:00 2055 GMT"), "{text}");
    let text = bench.openssl("asn1parse -in root.pem");
    assert!(text.contains("GENERALIZEDTIME   :20551225000000Z"), "{text}");
    assert!(text.contains("UTCTIME           :251231235900Z"), "{text}");
}

#[test]
fn what_is_not_a_certificate_is_refused_in_one_line() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let der = authority.root.der().as_ref();
    for (bytes, reason) in [
        (&b""[..], "it is empty"),
        (b"garbage", "begins with byte 0x67"),
        (&der[..100], "cut short"),
        (b"\x30\x03\x02\x01\x00", "the whole: "),
        (pem::encode("PRIVATE KEY", &[]).as_bytes(), "has PRIVATE KEY instead of CERTIFICATE"),
        (pem::encode("CERTIFICATE", &der[..100]).as_bytes(), "cut short"),
    ] {
        let error = certificates_from(bytes).unwrap_err().to_string();
        assert!(error.contains(reason) && error.lines().count() == 1, "{reason}: {error}");
    }
}

#[test]
fn no_change_of_a_byte_panics_or_goes_unnoticed() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let der = authority.issue(&*bench.key("web", Algorithm::P256), &Profile::client()).der().to_vec();
    let accepted = |bytes: &[u8]| {
        Certificate::from_der(bytes).and_then(|c| c.verify_signed_by(&authority.issuing)).is_ok()
    };
    assert!(accepted(&der));
    for at in 0..der.len() {
        assert!(!accepted(&der[..at]), "cut at {at}");
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut changed = der.clone();
            changed[at] ^= flip;
            assert!(!accepted(&changed), "byte {at} changed by {flip:#x}");
        }
    }
}

#[test]
fn pem_files_of_any_kind_are_read() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let text = format!(
        "Bag Attributes\n{}subject=CN=x\n{}{}",
        pem::encode("PRIVATE KEY", &[1]),
        authority.issuing.to_pem(),
        authority.root.to_pem()
    );
    let both = vec![authority.issuing.clone(), authority.root.clone()];
    assert_eq!(certificates_from(text.as_bytes()).unwrap(), both);
    assert_eq!(certificates_from(text.replace('\n', "\r\n").as_bytes()).unwrap(), both);
    assert_eq!(certificates_from(authority.root.der()).unwrap(), both[1..]);
}

#[test]
fn certificates_describe_themselves() {
    let bench = Bench::new();
    let authority = Authority::new(&bench, "acme", "Acme", Algorithm::P256);
    let certificate = authority.issue(&*bench.key("web", Algorithm::P256), &Profile::client());
    assert_eq!(
        certificate.describe(),
        format!(
            "CN=web,O=Acme, dns:localhost; issued by CN=Acme Issuing,O=Acme; for clientAuth; \
             valid 2025-12-31T23:59:00Z to 2026-01-31T00:00:00Z; serial {}",
            certificate.serial()
        )
    );
    assert!(authority.root.describe().contains("issued by itself; a CA; valid"), "{:?}", authority.root);
    assert_eq!(certificate.extended_key_usages(), ["clientAuth"]);
    assert!(certificate.is_for(Purpose::Client) && !certificate.is_for(Purpose::Server));
    assert!(authority.root.is_for(Purpose::Server), "no extension allows everything");
    bench.write("x.pem", certificate.to_pem());
    let shown = bench.openssl("x509 -in x.pem -noout -fingerprint -sha256").replace(':', "").to_lowercase();
    assert!(shown.contains(&certificate.fingerprint_hex()), "{shown}");
}
