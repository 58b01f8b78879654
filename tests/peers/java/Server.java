import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;

/**
 * A TLS server that demands client certificates. Arguments: a trust store, then key stores. It
 * listens once for each key store and version, says on which ports, and answers one line on each
 * connection. What it accepted or refused, and why, is on standard output. It ends with its
 * standard input.
 */
public final class Server {
    public static void main(String[] arguments) throws Exception {
        for (int i = 1; i < arguments.length; i++) {
            SSLContext context = Stores.context(Path.of(arguments[i]), Path.of(arguments[0]));
            for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
                SSLServerSocket listener =
                    (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0);
                listener.setNeedClientAuth(true);
                listener.setEnabledProtocols(new String[] {version});
                System.out.println("listening " + arguments[i] + " " + version + " " + listener.getLocalPort());
                start(() -> accept(listener));
            }
        }
        System.out.println("ready");
        while (System.in.read() != -1) {}
        System.exit(0);
    }

    private static void accept(SSLServerSocket listener) {
        while (true) {
            try {
                SSLSocket socket = (SSLSocket) listener.accept();
                start(() -> serve(socket));
            } catch (IOException e) {
                System.out.println("cannot accept: " + e);
                return;
            }
        }
    }

    private static void serve(SSLSocket socket) {
        try (socket) {
            socket.startHandshake();
            SSLSession session = socket.getSession();
            System.out.println("accepted " + session.getProtocol() + " " + session.getCipherSuite()
                + " " + session.getPeerPrincipal());
            BufferedReader reader = new BufferedReader(
                new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
            Writer writer = new OutputStreamWriter(socket.getOutputStream(), StandardCharsets.UTF_8);
            writer.write("java heard: " + reader.readLine() + "\n");
            writer.flush();
        } catch (IOException e) {
            System.out.println("refused " + e);
        }
    }

    private static void start(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
    }
}
