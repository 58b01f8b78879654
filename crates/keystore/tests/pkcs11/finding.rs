//! Keys that other programs put on the token, and certificates beside them.

use enclasp_keystore::{
    Algorithm, Error, Input, KeySpec, Keystore, Origin, Scheme, SignContext, StoreCertificate,
};

use crate::support::{Pins, Place, done, with_kryoptic, with_softhsm, with_tpm};

/// Has OpenSSL make a key and SoftHSM's own tool put it on the token.
fn import(place: &Place, label: &str, id: &str) {
    let pem = format!("{label}.pem");
    place.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &pem]);
    let path = place.folder.join(pem).display().to_string();
    let arguments = ["--import", &path, "--token", "t", "--label", label, "--id", id, "--pin", "1234"];
    done(std::process::Command::new("softhsm2-util").args(arguments));
}

/// Has OpenSSL make a self-signed certificate of the key, in DER.
fn certificate(place: &Place, label: &str, days: &str) -> Vec<u8> {
    let (pem, out) = (format!("{label}.pem"), format!("{label}-{days}.der"));
    let subject = format!("/CN={label}");
    place.openssl(&[
        "req", "-x509", "-new", "-key", &pem, "-subj", &subject, "-days", days, "-outform", "DER", "-out",
        &out,
    ]);
    place.read(&out)
}

#[test]
fn a_name_that_fits_two_keys_is_refused_with_both() {
    with_softhsm("finding::a_name_that_fits_two_keys_is_refused_with_both", |place| {
        for id in ["01", "02"] {
            place.tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "twin", "--id", id]);
        }
        let keystore = place.keystore(&Pins::new("1234"));
        let error = keystore.open(&place.uri("twin")).map(|_| ()).unwrap_err();
        let Error::Ambiguous { matches, .. } = &error else { panic!("{error}") };
        assert_eq!(matches.len(), 2);
        for one in matches {
            let uri = one.parse().unwrap();
            assert_eq!(keystore.open(&uri).unwrap().info().uri, uri);
        }
        assert!(matches!(keystore.delete(&place.uri("twin")), Err(Error::Ambiguous { .. })));
        keystore.delete(&matches[0].parse().unwrap()).unwrap();
        keystore.open(&place.uri("twin")).unwrap();
    });
}

#[test]
fn keys_that_others_made_are_found_and_marked() {
    with_softhsm("finding::keys_that_others_made_are_found_and_marked", |place| {
        place.tool(&["--keypairgen", "--key-type", "EC:secp384r1", "--label", "p384", "--id", "03"]);
        place.tool(&["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--id", "04"]);
        let extractable =
            ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "loose", "--extractable"];
        place.tool(&extractable);
        import(place, "outside", "05");
        let pins = Pins::new("1234");
        let keystore = place.keystore(&pins);

        // Without a PIN the public keys tell what there is.
        let listed = keystore.list().unwrap();
        assert_eq!(pins.asked(), 0);
        assert_eq!(listed.len(), 4);
        assert!(listed.iter().all(|key| key.origin == Origin::Imported), "nothing is vouched for unseen");

        for (label, algorithm, origin, schemes) in [
            ("p384", Algorithm::P384, Origin::Generated, 2),
            ("rsa", Algorithm::Rsa, Origin::Generated, 6),
            ("loose", Algorithm::P256, Origin::Imported, 2),
            ("outside", Algorithm::P256, Origin::Imported, 2),
        ] {
            let key = keystore.open(&place.uri(label)).unwrap();
            let info = key.info();
            assert_eq!((info.algorithm, info.origin), (algorithm, origin), "{label}");
            assert_eq!(info.capabilities.proved.len(), schemes, "{label}: {:?}", info.capabilities);
            assert!(
                listed.iter().any(|listed| listed.uri == info.uri && listed.spki == info.spki),
                "{label}"
            );
        }
        assert_eq!(keystore.list().unwrap().len(), 4);
        assert_eq!(pins.asked(), 1);

        // OpenSSL agrees about the public key.
        place.openssl(&["pkey", "-in", "outside.pem", "-pubout", "-outform", "DER", "-out", "outside.spki"]);
        let outside = keystore.open(&place.uri("outside")).unwrap();
        assert_eq!(outside.info().spki, place.read("outside.spki"));
    });
}

#[test]
fn the_certificate_lives_beside_its_key() {
    with_softhsm("finding::the_certificate_lives_beside_its_key", |place| {
        import(place, "card", "0a0b");
        import(place, "other", "0c");
        let keystore = place.keystore(&Pins::new("1234"));
        let uri = place.uri("card");
        let refused = keystore.store_certificate(&uri, &certificate(place, "other", "5"));
        assert!(refused.unwrap_err().to_string().contains("another key"));
        assert!(keystore.store_certificate(&uri, b"0").is_err());
        assert!(matches!(keystore.certificate(&place.uri("none")), Err(Error::Absent { .. })));
        assert_eq!(keystore.certificate(&uri).unwrap(), None);

        let (first, second) = (certificate(place, "card", "5"), certificate(place, "card", "6"));
        keystore.store_certificate(&uri, &first).unwrap();
        assert_eq!(keystore.certificate(&uri).unwrap(), Some(first));
        keystore.store_certificate(&uri, &second).unwrap();
        keystore.store_certificate(&uri, &second).unwrap();
        assert_eq!(keystore.certificate(&uri).unwrap().as_ref(), Some(&second));
        // Another program finds the one, and only that.
        let read = place.tool(&["--read-object", "--type", "cert", "--id", "0a0b"]).stdout;
        assert!(read == second);
        let listed = place.tool(&["--list-objects", "--type", "cert"]).stdout;
        assert_eq!(String::from_utf8_lossy(&listed).matches("Certificate Object").count(), 1);

        // A card that holds no public key has it in the certificate.
        place.tool(&["--delete-object", "--type", "pubkey", "--id", "0a0b"]);
        let key = keystore.open(&uri).unwrap();
        key.sign(Scheme::EcdsaP256Sha256, Input::Message(b"x"), &SignContext::new("test")).unwrap();
        keystore.delete(&uri).unwrap();
        let left = place.tool(&["--list-objects"]).stdout;
        assert!(!String::from_utf8_lossy(&left).contains("card"), "key and certificate are gone");
        // Without either its public key cannot be known.
        place.tool(&["--delete-object", "--type", "pubkey", "--id", "0c"]);
        let error = keystore.open(&place.uri("other")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("nor a certificate"), "{error}");
    });
}

/// A certificate of a key made on the token, issued by another key.
fn certificate_on_other_tokens(place: &Place) {
    let keystore = place.keystore(&Pins::new("1234"));
    let uri = place.uri("card");
    let key = keystore.create(&KeySpec::new(uri.clone())).unwrap();
    std::fs::write(place.folder.join("card.spki"), &key.info().spki).unwrap();
    place.openssl(&["pkey", "-pubin", "-inform", "DER", "-in", "card.spki", "-out", "card.pub"]);
    place.openssl(&["genpkey", "-algorithm", "ED25519", "-out", "ca.pem"]);
    let issue = |days: &str| {
        let issued =
            ["-new", "-subj", "/CN=card", "-key", "ca.pem", "-force_pubkey", "card.pub", "-days", days];
        place.openssl(&[&["x509"], &issued[..], &["-outform", "DER", "-out", "card.der"]].concat());
        place.read("card.der")
    };
    for days in ["5", "6"] {
        let certificate = issue(days);
        keystore.store_certificate(&uri, &certificate).unwrap();
        assert_eq!(keystore.certificate(&uri).unwrap(), Some(certificate));
    }
    keystore.delete(&uri).unwrap();
    assert!(matches!(keystore.certificate(&uri), Err(Error::Absent { .. })));
    assert_eq!(keystore.list().unwrap(), []);
}

#[test]
fn kryoptic_holds_the_certificate_too() {
    with_kryoptic("finding::kryoptic_holds_the_certificate_too", certificate_on_other_tokens);
}

#[test]
fn a_tpm_holds_the_certificate_too() {
    with_tpm("finding::a_tpm_holds_the_certificate_too", certificate_on_other_tokens);
}
