//! An authority that is not ours: OpenSSL's, which signs whatever it is given, for any time.

use super::home::Home;

/// A root made by OpenSSL: NAME-ca.pem and NAME-ca.key in a home's folder.
pub(crate) struct Elsewhere<'a> {
    home: &'a Home,
    name: &'static str,
}

/// When a certificate is valid, in the notation of `openssl ca`.
pub(crate) const LONG_AGO: (&str, &str) = ("20200101000000Z", "20210101000000Z");
pub(crate) const NOW: (&str, &str) = ("20200101000000Z", "20491231235959Z");

impl<'a> Elsewhere<'a> {
    pub(crate) fn new(home: &'a Home, name: &'static str) -> Self {
        home.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}-ca.key"));
        home.openssl(&format!(
            "req -x509 -new -key {name}-ca.key -subj /CN={name} -days 3650 -out {name}-ca.pem \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        std::fs::create_dir(home.path(&format!("{name}-ca"))).expect("a folder");
        home.write(&format!("{name}-ca/index.txt"), "");
        home.write(&format!("{name}-ca/crlnumber"), "01\n");
        let config = format!(
            "[ca]\ndefault_ca = ours\n[ours]\ndatabase = {name}-ca/index.txt\nnew_certs_dir = {name}-ca\n\
             certificate = {name}-ca.pem\nprivate_key = {name}-ca.key\nrand_serial = yes\ndefault_md = sha256\n\
             policy = any\ncrl_extensions = list\ncrlnumber = {name}-ca/crlnumber\nunique_subject = no\ncopy_extensions = copy\nx509_extensions = leaf\n\
             [list]\nauthorityKeyIdentifier = keyid\n[any]\ncommonName = optional\norganizationName = optional\norganizationalUnitName = optional\n\
             countryName = optional\n[leaf]\nbasicConstraints = critical,CA:FALSE\n\
             extendedKeyUsage = clientAuth,serverAuth\n"
        );
        home.write(&format!("{name}-ca.cnf"), config);
        Self { home, name }
    }

    /// Signs SUBJECT.csr; the certificate is SUBJECT.pem.
    pub(crate) fn sign(&self, subject: &str, (from, to): (&str, &str)) {
        let name = self.name;
        self.home.openssl(&format!(
            "ca -batch -notext -preserveDN -config {name}-ca.cnf -startdate {from} -enddate {to} -in {subject}.csr -out {subject}.pem"
        ));
    }

    /// The file of its root.
    pub(crate) fn root(&self) -> String {
        format!("{}-ca.pem", self.name)
    }

    /// An identity of ours that it certified.
    pub(crate) fn identity(&self, name: &str, validity: (&str, &str)) {
        self.home.request(name, "p256");
        self.sign(name, validity);
        self.home.import(name, &self.root());
    }

    /// A peer's key and certificate.
    pub(crate) fn peer(&self, name: &str, validity: (&str, &str)) {
        self.home.peer_request(name, "p256");
        self.sign(name, validity);
    }
}
