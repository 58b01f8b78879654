import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** Says of a certificate, asking only its CRL or only OCSP, whether it is good. */
final class Revocation {
    public static void main(String[] arguments) throws GeneralSecurityException, IOException {
        X509Certificate root = read(arguments[0]);
        CertPath path = factory().generateCertPath(List.of(read(arguments[1]), read(arguments[2])));
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        EnumSet<Option> options = EnumSet.of(Option.ONLY_END_ENTITY, Option.NO_FALLBACK);
        if (arguments[3].equals("crl")) {
            options.add(Option.PREFER_CRLS);
        }
        checker.setOptions(options);
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(path, parameters);
            System.out.println(arguments[3] + ": good");
        } catch (CertPathValidatorException e) {
            System.out.println(arguments[3] + ": " + e.getReason() + ": " + e.getMessage());
        }
    }

    private static X509Certificate read(String file) throws GeneralSecurityException, IOException {
        try (InputStream stream = Files.newInputStream(Path.of(file))) {
            return (X509Certificate) factory().generateCertificate(stream);
        }
    }

    private static CertificateFactory factory() throws GeneralSecurityException {
        return CertificateFactory.getInstance("X.509");
    }

    private Revocation() {}
}
