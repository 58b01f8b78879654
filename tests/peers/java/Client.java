import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;

/**
 * A TLS client. Argument: a trust store. Each line of standard input is a connection to make, as
 * "PORT VERSION KEYSTORE", where a key store "-" is none; the answer to it is one line of standard
 * output.
 */
public final class Client {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            try {
                System.out.println(connect(Integer.parseInt(words[0]), words[1], words[2], arguments[0]));
            } catch (Exception e) {
                System.out.println("failed " + e);
            }
        }
    }

    private static String connect(int port, String version, String keys, String trust) throws Exception {
        SSLContext context = Stores.context(keys.equals("-") ? null : Path.of(keys), Path.of(trust));
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("localhost", port)) {
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            parameters.setProtocols(new String[] {version});
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            SSLSession session = socket.getSession();
            Writer writer = new OutputStreamWriter(socket.getOutputStream(), StandardCharsets.UTF_8);
            writer.write("hello from java\n");
            writer.flush();
            String answer = new BufferedReader(
                new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
            return "connected " + session.getProtocol() + " " + session.getPeerPrincipal() + " " + answer;
        }
    }
}
