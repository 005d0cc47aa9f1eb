import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.MessageDigest;
import java.util.HexFormat;

/** Java's own client: calls on one connection, a chunked upload, an event stream. kb.py says what the variables mean. */
public class Http {
    static final String BASE = System.getenv("KB_BASE");
    static final String TENANT = System.getenv("KB_TENANTS").split(",")[0];
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static HttpResponse<String> send(String path, String method, BodyPublisher body) throws Exception {
        String identity = "tenant=\"" + TENANT + "\", role=\"" + System.getenv("KB_ROLE") + "\"";
        HttpRequest request = HttpRequest.newBuilder(URI.create(BASE + path)).method(method, body)
            .header("Authorization", "Bearer placeholder-from-the-agent").header("Agent-Identity", identity).build();
        return CLIENT.send(request, BodyHandlers.ofString());
    }

    static void check(String body, String expected) {
        if (!body.contains(expected)) throw new IllegalStateException("no " + expected + " in " + body);
    }

    public static void main(String[] none) {
        String outcome = "\"ok\": true, \"detail\": {\"java\": \"" + Runtime.version() + "\"}";
        try {
            for (int n = 0; n < 4; n++) {
                check(send("/echo?n=" + n, "GET", BodyPublishers.noBody()).body(), "\"tenant\":\"" + TENANT + "\"");
            }
            byte[] bytes = new byte[1 << 20];
            String sum = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
            BodyPublisher chunked = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes));
            check(send("/upload", "PUT", chunked).body(), sum);
            long events = send("/stream/5", "GET", BodyPublishers.noBody()).body().lines().filter(l -> l.startsWith("data: ")).count();
            check("events: " + events, "events: 5");
        } catch (Exception error) {
            outcome = "\"ok\": false, \"detail\": \"" + error.toString().replaceAll("[\"\\\\\\n]", "'") + "\"";
        }
        System.out.println("{\"client\": \"java\", " + outcome + "}");
        System.exit(outcome.startsWith("\"ok\": true") ? 0 : 1);
    }
}
