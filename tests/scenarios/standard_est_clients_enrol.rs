//! curl with an OpenSSL request, and strongSwan's `pki --est`, get certificates from `enclasp ca serve`.

use crate::harness::{Home, needs, run};

#[test]
fn curl() {
    if !needs(&["openssl", "curl"]) {
        return;
    }
    let (home, _authority, port) = Home::with_serving_authority();
    home.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout web.key -subj /CN=web -out web.csr");
    home.openssl("req -new -key web.key -subj /CN=other -out other.csr");
    for name in ["web", "other"] {
        home.openssl(&format!("req -in {name}.csr -outform DER -out {name}.der"));
        home.openssl(&format!("base64 -in {name}.der -out {name}.b64"));
    }
    let token = home.token("--cn web --san dns:web");
    let post = |csr: &str, token: &str| {
        // By a file, as secrets are no arguments.
        home.write("curlrc", format!("user = \"anybody:{}\"\n", token));
        run(home.program(
            "curl",
            &format!(
                "-sS -K curlrc --cacert ca/root.pem -H Content-Type:application/pkcs10 --data-binary @{csr} \
                 -w %{{stderr}}%{{http_code}} -o answer https://127.0.0.1:{port}/.well-known/est/simpleenroll"
            ),
        ))
        .succeeds()
    };
    post("web.b64", "guess").says("401");
    post("other.b64", &token).says("403");
    assert!(String::from_utf8_lossy(&home.read("answer")).contains("the request is for CN=other"));
    post("web.b64", &token).says("200");
    home.openssl("base64 -d -A -in answer -out answer.p7");
    home.openssl("pkcs7 -inform DER -in answer.p7 -print_certs -out web.pem");
    home.openssl("verify -CAfile ca/root.pem -untrusted ca/issuing.pem web.pem");
    home.openssl("x509 -in web.pem -noout -subject -ext subjectAltName").prints("CN = web").prints("DNS:web");
}

#[test]
fn strongswan() {
    if !needs(&["openssl", "pki"]) {
        return;
    }
    let (home, _authority, port) = Home::with_serving_authority();
    home.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout web.key -subj /CN=web -outform DER -out web.der");
    let token = home.token("--cn web --san dns:web");
    // The tool takes the password nowhere else.
    let done = run(home.program(
        "pki",
        &format!(
            "--est --url https://127.0.0.1:{port} --in web.der --cacert ca/root.pem --cacert ca/issuing.pem \
             --userpass any:{} --interval 1 --maxpolltime 5 --outform pem",
            token
        ),
    ))
    .succeeds();
    home.write("web.pem", done.stdout);
    home.openssl("verify -CAfile ca/root.pem -untrusted ca/issuing.pem web.pem");
}
