import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.Provider;
import java.security.Security;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** PKCS#12 files, all with the password "secret", and configurations of SunPKCS11, NAME.pkcs11. */
final class Stores {
    private static final char[] PASSWORD = "secret".toCharArray();

    /** With the keys of one store, or none, and the roots of another. */
    static SSLContext context(Path keys, Path trust) throws GeneralSecurityException, IOException {
        KeyManager[] managers = null;
        if (keys != null) {
            KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX");
            factory.init(load(keys), PASSWORD);
            managers = factory.getKeyManagers();
        }
        TrustManagerFactory roots = TrustManagerFactory.getInstance("PKIX");
        roots.init(load(trust));
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(managers, roots.getTrustManagers(), null);
        return context;
    }

    private static KeyStore load(Path file) throws GeneralSecurityException, IOException {
        if (file.toString().endsWith(".pkcs11")) {
            // One for the whole program: a second one of its name is not taken.
            Provider provider = Security.getProvider("SunPKCS11-Enclasp");
            if (provider == null) {
                provider = Security.getProvider("SunPKCS11").configure(file.toString());
                Security.addProvider(provider);
            }
            KeyStore token = KeyStore.getInstance("PKCS11", provider);
            token.load(null, null);
            return token;
        }
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream stream = Files.newInputStream(file)) {
            store.load(stream, PASSWORD);
        }
        return store;
    }

    private Stores() {}
}
