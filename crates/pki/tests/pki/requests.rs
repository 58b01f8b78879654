use enclasp_keystore::{Algorithm, Error as KeyError, Key, KeySpec, KeyUri, Policy, Presence, Scheme};
use enclasp_pki::{CertificationRequest, Error, SubjectAltName, create_csr, pem};
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

use crate::common::{Bench, Damaged, RsaKey, context, name};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519];

fn sans(texts: &[&str]) -> Vec<SubjectAltName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn request(bench: &Bench) -> Vec<u8> {
    let key = bench.key("web", Algorithm::P256);
    create_csr(&*key, &name("CN=web,O=Acme,C=CH"), &sans(&["dns:localhost"]), &context()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let error = CertificationRequest::from_pem_or_der(bytes).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn what_is_not_a_request_is_refused_in_one_line() {
    let der = request(&Bench::new());
    let pem_text = pem::encode("CERTIFICATE REQUEST", &der);
    let base64: String = pem_text.lines().filter(|line| !line.starts_with('-')).collect();
    let cut = &der[..der.len() - 1];
    for (bytes, reason) in [
        (&b""[..], "it is empty"),
        (b"\0", "begins with byte 0x00"),
        (b"garbage", "begins with byte 0x67"),
        (b"0", "the outermost length"),
        (b"\x30\x80\0\0", "the outermost length"),
        (b"\x30\x84\xff\xff\xff\xff", "cut short"),
        (b"\x30\0", "the signed part"),
        (base64.as_bytes(), "base64 without its PEM frame"),
        (cut, "cut short"),
        (&[&der[..], b"\n"].concat(), "1 bytes follow its end"),
        (&vec![0x30; (1 << 20) + 1], "more than 1048576"),
        (pem::encode("CERTIFICATE", &der).as_bytes(), "has CERTIFICATE instead of CERTIFICATE REQUEST"),
        (format!("{pem_text}{pem_text}").as_bytes(), "more than one"),
        (&pem_text.as_bytes()[..100], "has no `END CERTIFICATE REQUEST`"),
        (pem_text.replacen("MI", "M!", 1).as_bytes(), "is not base64"),
        (pem::encode("CERTIFICATE REQUEST", cut).as_bytes(), "cut short"),
    ] {
        let error = refusal(bytes);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn the_field_that_is_wrong_is_named() {
    let der = request(&Bench::new());
    let at = |pattern: &[u8]| der.windows(pattern.len()).position(|bytes| bytes == pattern).unwrap();
    let changed = |at: usize, to: u8| {
        let mut changed = der.clone();
        changed[at] = to;
        refusal(&changed)
    };
    assert!(changed(at(b"\x02\x01\0") + 2, 1).contains("version: it is 1"));
    assert!(changed(at(b"\x0c\x03web"), 0x7f).contains("subject: "));
    assert!(changed(at(b"\xa0\x27\x30\x25"), 0xa1).contains("attributes: expected"));
    assert!(changed(at(b"localhost"), b'_').contains("`dns:_ocalhost` is not a subject alternative name"));
    assert!(changed(at(b"\x82\x09localhost"), 0x87).contains("an IP address of 9 bytes"));
    assert!(
        changed(at(b"\x82\x09localhost"), 0x88).contains("`registeredID` is not a subject alternative name")
    );
    assert!(changed(at(b"\x03\x55\x1d\x11") + 3, 0xff).contains("extensionRequest: "));
}

#[test]
fn a_request_without_the_attributes_field_is_refused() {
    let bench = Bench::new();
    let key = bench.key("web", Algorithm::P256);
    let der = create_csr(&*key, &name("CN=web"), &[], &context()).unwrap();
    // The empty field, and the beginning of the signature algorithm that follows it.
    let pattern = b"\xa0\0\x30\x0a\x06\x08";
    let empty =
        der.windows(pattern.len()).position(|bytes| bytes == pattern).expect("it is there when empty");
    let mut without = der.clone();
    without.drain(empty..empty + 2);
    // Both lengths above it are two bytes less.
    for length in [2, 4] {
        without[length] -= 2;
    }
    let error = refusal(&without);
    assert!(error.contains("attributes: missing"), "{error}");
}

#[test]
fn no_change_of_a_byte_panics_or_goes_unnoticed() {
    let der = request(&Bench::new());
    let accepted =
        |bytes: &[u8]| CertificationRequest::from_pem_or_der(bytes).and_then(|r| r.verify()).is_ok();
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
fn a_signature_that_claims_another_kind_of_key_is_refused() {
    let mut request = CertReq::from_der(&request(&Bench::new())).unwrap();
    // sha256WithRSAEncryption over an EC key.
    request.algorithm.oid = const_oid::db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION;
    let request = CertificationRequest::from_der(&request.to_der().unwrap()).unwrap();
    let error = request.verify().unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error:?}");
    assert!(error.to_string().contains("claims to be sha256WithRSAEncryption"), "{error}");
    assert!(error.to_string().contains("the key is P-256"), "{error}");
}

#[test]
fn weak_and_unknown_keys_are_told_apart() {
    let bench = Bench::new();
    for (key, weak, reason) in [
        ("RSA -pkeyopt rsa_keygen_bits:1024", true, "RSA key of 1024 bits"),
        ("RSA -pkeyopt rsa_keygen_bits:2047", true, "RSA key of 2047 bits"),
        ("EC -pkeyopt ec_paramgen_curve:prime192v1", true, "P-192"),
        ("EC -pkeyopt ec_paramgen_curve:secp224r1", true, "P-224"),
        ("EC -pkeyopt ec_paramgen_curve:secp521r1", false, "secp521r1"),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", false, "curve"),
        ("EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", false, "name its curve"),
        ("ED448", false, "id-Ed448"),
    ] {
        bench.openssl(&format!("genpkey -algorithm {key} -out key.pem"));
        bench.openssl("req -new -key key.pem -subj /CN=x -out x.csr");
        let request = CertificationRequest::from_pem_or_der(&bench.read("x.csr")).unwrap();
        let error = request.verify().unwrap_err();
        assert_eq!(matches!(error, Error::Weak { .. }), weak, "{error:?}");
        assert_eq!(matches!(error, Error::Unsupported { .. }), !weak, "{error:?}");
        assert!(error.to_string().contains(reason), "{key}: {error}");
    }
}

#[test]
fn weak_and_unknown_signatures_are_refused() {
    let bench = Bench::new();
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    for (options, weak, reason) in [
        ("-key ec.pem -sha1", true, "1.2.840.10045.4.1"),
        ("-key rsa.pem -sha1", true, "sha1WithRSAEncryption"),
        ("-key rsa.pem -md5", true, "md5WithRSAEncryption"),
        ("-key ec.pem -sha512", false, "ecdsa-with-SHA512"),
        ("-key rsa.pem -sha1 -sigopt rsa_padding_mode:pss", true, "RSASSA-PSS with SHA-1"),
        ("-key rsa.pem -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20", false, "salt"),
        (
            "-key rsa.pem -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_mgf1_md:sha384",
            false,
            "another hash for its mask",
        ),
    ] {
        bench.openssl(&format!("req -new {options} -subj /CN=x -out x.csr"));
        let request = CertificationRequest::from_pem_or_der(&bench.read("x.csr")).unwrap();
        let error = request.verify().unwrap_err();
        assert_eq!(matches!(error, Error::Weak { .. }), weak, "{error:?}");
        assert_eq!(matches!(error, Error::Unsupported { .. }), !weak, "{error:?}");
        assert!(error.to_string().contains(reason), "{options}: {error}");
    }
}

#[test]
fn invalid_names_are_refused_before_the_key_is_asked() {
    let bench = Bench::new();
    let key = Damaged(bench.key("web", Algorithm::P256));
    let invalid = [SubjectAltName::Dns("zürich.ch".into())];
    let error = create_csr(&key, &name("CN=web"), &invalid, &context()).unwrap_err();
    assert!(matches!(error, Error::Name { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("A-label"), "{error:?}");
}

#[test]
fn a_wrong_signature_never_leaves() {
    let bench = Bench::new();
    let key = Damaged(bench.key("web", Algorithm::P256));
    let error = create_csr(&key, &name("CN=web"), &[], &context()).unwrap_err();
    assert!(matches!(error, Error::Key(KeyError::WrongSignature { .. })), "{error:?}");
}

#[test]
fn the_reason_of_a_key_that_refuses_comes_through() {
    let policy = Policy { presence: Presence::Confirm, ..Policy::default() };
    let bench = Bench::new();
    let key = bench.key_of(KeySpec { policy, ..KeySpec::new(KeyUri::soft("web").unwrap()) });
    let error = create_csr(&*key, &name("CN=web"), &[], &context()).unwrap_err();
    assert!(matches!(error, Error::Key(KeyError::Denied { .. })), "{error:?}");
    assert!(error.to_string().contains("nobody is here"), "{error}");
}

#[test]
fn a_key_without_a_proved_scheme_is_not_used() {
    let error = create_csr(&RsaKey::new(&[]), &name("CN=web"), &[], &context()).unwrap_err();
    assert!(matches!(error, Error::Key(KeyError::Unsupported { .. })), "{error:?}");
}

#[test]
fn openssl_accepts_ours_in_der_and_pem() {
    let bench = Bench::new();
    let subject = "CN=web,emailAddress=ops@acme.ch,OU=Öps,OU=日本語,O=Acme\\, Inc.,L=Zürich,ST=ZH,C=CH";
    let names = [
        "dns:localhost",
        "dns:*.acme.ch",
        "uri:spiffe://acme.ch/web",
        "email:ops@acme.ch",
        "ip:10.0.0.1",
        "ip:::1",
    ];
    for algorithm in ALGORITHMS {
        let key = bench.key(&algorithm.to_string(), algorithm);
        check_with_openssl(&bench, &*key, subject, &sans(&names));
        let text = bench.openssl("req -in ours.csr -noout -text -nameopt utf8,sep_comma_plus,sname");
        for expected in [
            "C=CH,ST=ZH,L=Zürich,O=Acme",
            "OU=日本語,OU=Öps,emailAddress=ops@acme.ch,CN=web",
            "DNS:localhost, DNS:*.acme.ch, URI:spiffe://acme.ch/web, email:ops@acme.ch, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        check_with_openssl(&bench, &*key, "", &[]);
    }
}

#[test]
fn string_types_are_those_of_the_standard() {
    let bench = Bench::new();
    let key = bench.key("web", Algorithm::P256);
    check_with_openssl(&bench, &*key, "CN=web,emailAddress=a@b.ch,O=Acme,C=CH", &[]);
    let text = bench.openssl("asn1parse -in ours.csr");
    for expected in [
        "PRINTABLESTRING   :CH",
        "UTF8STRING        :Acme",
        "IA5STRING         :a@b.ch",
        "UTF8STRING        :web",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn openssl_accepts_ours_with_every_rsa_scheme() {
    let bench = Bench::new();
    for &scheme in Algorithm::Rsa.schemes() {
        check_with_openssl(&bench, &RsaKey::new(&[scheme]), "CN=web", &[]);
    }
    let text = bench.openssl("req -in ours.csr -noout -text");
    assert!(text.contains("sha512WithRSAEncryption"), "{text}");
    assert_eq!(Algorithm::Rsa.schemes().last(), Some(&Scheme::RsaPkcs1Sha512));
}

#[test]
fn lengths_are_right_at_every_boundary() {
    let bench = Bench::new();
    let key = bench.key("web", Algorithm::P256);
    for length in [1, 100, 126, 127, 128, 129, 254, 255, 256, 257, 1000, 65_535, 65_536] {
        let value = "ü".repeat(length / 2) + &"x".repeat(length % 2);
        check_with_openssl(&bench, &*key, &format!("CN={value}"), &[]);
        let uri = SubjectAltName::Uri(format!("urn:{}", "y".repeat(length)));
        check_with_openssl(&bench, &*key, "CN=web", &[uri]);
    }
    let many: Vec<_> = (0..4000).map(|n| SubjectAltName::Dns(format!("host-{n}.acme.ch"))).collect();
    check_with_openssl(&bench, &*key, "CN=web", &many);
    assert!(bench.read("ours.der").len() > 64 << 10);
}

#[test]
fn we_accept_those_of_openssl() {
    let bench = Bench::new();
    for (key, options, algorithm) in [
        ("EC -pkeyopt ec_paramgen_curve:P-256", "", Algorithm::P256),
        ("EC -pkeyopt ec_paramgen_curve:P-256", "-sha384", Algorithm::P256),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "", Algorithm::P384),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "-sha384", Algorithm::P384),
        ("ED25519", "", Algorithm::Ed25519),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "-sha512", Algorithm::Rsa),
        ("RSA -pkeyopt rsa_keygen_bits:3072", "-sha384", Algorithm::Rsa),
        (
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest",
            Algorithm::Rsa,
        ),
    ] {
        bench.openssl(&format!("genpkey -algorithm {key} -out key.pem"));
        bench.openssl(&format!(
            "req -new -key key.pem {options} -subj /C=CH/O=Acme/CN=web -out x.csr \
             -addext subjectAltName=DNS:Web.Acme.CH,IP:::1 -addext keyUsage=digitalSignature"
        ));
        bench.openssl("req -in x.csr -outform DER -out x.der");
        let request = CertificationRequest::from_pem_or_der(&bench.read("x.csr")).unwrap();
        request.verify().unwrap_or_else(|e| panic!("{key} {options}: {e}"));
        assert_eq!(request, CertificationRequest::from_pem_or_der(&bench.read("x.der")).unwrap());
        assert_eq!(request.algorithm().unwrap(), algorithm);
        assert_eq!(request.subject().to_string(), "CN=web,O=Acme,C=CH");
        assert_eq!(request.subject_alt_names(), sans(&["dns:web.acme.ch", "ip:::1"]));
    }
}

#[test]
fn gnutls_reads_ours_and_we_read_its() {
    let bench = Bench::new();
    let der = create_csr(
        &*bench.key("web", Algorithm::P384),
        &name("CN=wéb,O=Acme"),
        &sans(&["dns:localhost"]),
        &context(),
    );
    bench.write("ours.der", der.unwrap());
    let Some(text) = bench.run("certtool", "--crq-info --inder --infile ours.der") else { return };
    assert!(text.contains("Subject: CN=wéb,O=Acme"), "{text}");
    assert!(text.contains("DNSname: localhost"), "{text}");
    assert!(text.contains("Self signature: verified"), "{text}");

    bench.write("template", "cn = web\norganization = Acme\ndns_name = localhost\ntls_www_client\n");
    bench.run("certtool", "--generate-privkey --key-type ecdsa --curve secp256r1 --outfile key.pem").unwrap();
    bench
        .run("certtool", "--generate-request --load-privkey key.pem --template template --outfile x.csr")
        .unwrap();
    let request = CertificationRequest::from_pem_or_der(&bench.read("x.csr")).unwrap();
    request.verify().unwrap();
    assert_eq!(request.subject_alt_names(), sans(&["dns:localhost"]));
}

#[test]
fn we_read_those_of_strongswan() {
    let bench = Bench::new();
    bench.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ecdsa.pem");
    bench.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    for (options, algorithm) in [
        ("--type ecdsa --in ecdsa.pem", Algorithm::P256),
        ("--type rsa --in rsa.pem", Algorithm::Rsa),
        ("--type rsa --in rsa.pem --rsa-padding pss", Algorithm::Rsa),
    ] {
        let arguments = format!("--req {options} --dn C=CH,O=Acme,CN=web --san web.acme.ch --outform pem");
        let Some(text) = bench.run("pki", &arguments) else { return };
        let request = CertificationRequest::from_pem_or_der(text.as_bytes()).unwrap();
        request.verify().unwrap_or_else(|e| panic!("{options}: {e}"));
        assert_eq!(request.algorithm().unwrap(), algorithm);
        assert_eq!(request.subject().to_string(), "CN=web,O=Acme,C=CH");
        assert_eq!(request.subject_alt_names(), sans(&["dns:web.acme.ch"]));
    }
}

/// OpenSSL verifies the request in both encodings, and we read it back.
fn check_with_openssl(bench: &Bench, key: &dyn Key, subject: &str, sans: &[SubjectAltName]) {
    let der = create_csr(key, &name(subject), sans, &context()).unwrap();
    bench.write("ours.der", &der);
    bench.write("ours.csr", pem::encode("CERTIFICATE REQUEST", &der));
    bench.openssl("req -verify -noout -inform DER -in ours.der");
    bench.openssl("req -verify -noout -inform PEM -in ours.csr");
    let request = CertificationRequest::from_pem_or_der(&der).unwrap();
    request.verify().unwrap();
    assert_eq!(request.subject().to_string(), subject);
    assert_eq!(request.subject_alt_names(), sans);
    assert_eq!(request.spki(), key.info().spki);
}
