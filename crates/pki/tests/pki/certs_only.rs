use enclasp_keystore::Algorithm;
use enclasp_pki::{Certificate, certs_only, pem};

use crate::common::{Authority, Bench};

fn authority(bench: &Bench) -> Authority {
    Authority::new(bench, "acme", "Acme", Algorithm::P256)
}

#[test]
fn what_is_not_certs_only_is_refused() {
    let bench = Bench::new();
    let authority = authority(&bench);
    let message = certs_only::encode(&[authority.root.der().clone()]).unwrap();
    for (bytes, reason) in [
        (&b""[..], "it is empty"),
        (b"garbage", "begins with byte"),
        (authority.root.der(), "contentType"),
        (&message[..message.len() - 1], "cut short"),
        (b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01", "not signedData"),
        (&certs_only::encode(&[]).unwrap(), "no certificates"),
    ] {
        let error = certs_only::decode(bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 0xff;
        let _ = certs_only::decode(&changed);
        let _ = certs_only::decode(&message[..at]);
    }
    assert!(certs_only::encode(&[b"\x30\x05\0".as_slice().into()]).is_err());
}

#[test]
fn openssl_reads_ours() {
    let bench = Bench::new();
    let authority = authority(&bench);
    let chain = [authority.issuing.der().clone(), authority.root.der().clone()];
    bench.write("ours.p7", certs_only::encode(&chain).unwrap());
    let text = bench.openssl("pkcs7 -inform DER -in ours.p7 -print_certs");
    let blocks = pem::decode_all(&text).unwrap();
    assert!(blocks.iter().map(|block| &block.der[..]).eq(chain.iter().map(|der| &**der)));
}

#[test]
fn we_read_those_of_openssl() {
    let bench = Bench::new();
    let authority = authority(&bench);
    bench.write("issuing.pem", authority.issuing.to_pem());
    bench.write("root.pem", authority.root.to_pem());
    let expected: Vec<_> =
        [&authority.issuing, &authority.root].map(Certificate::der).into_iter().cloned().collect();
    bench.openssl("crl2pkcs7 -nocrl -certfile issuing.pem -certfile root.pem -outform DER -out theirs.p7");
    assert_eq!(certs_only::decode(&bench.read("theirs.p7")).unwrap(), expected);
    // A message that is signed, and over content, still has its certificates.
    bench.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k.pem -out c.pem -subj /CN=x",
    );
    bench.openssl(
        "cms -sign -binary -nodetach -in c.pem -signer c.pem -inkey k.pem -outform DER -out signed.p7",
    );
    assert_eq!(certs_only::decode(&bench.read("signed.p7")).unwrap().len(), 1);
}
