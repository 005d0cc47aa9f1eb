import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** Gets each URL with both of Java's own clients, to which nothing is told about a proxy or a certificate. */
public class Fetch {
    public static void main(String[] urls) throws Exception {
        System.out.println("mine=" + System.getProperty("mine"));
        HttpClient client = HttpClient.newHttpClient();
        for (String url : urls) {
            URI uri = URI.create(url);
            System.out.println("HttpClient " + client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body());
            HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
            try (InputStream body = connection.getInputStream()) {
                System.out.println("HttpURLConnection " + new String(body.readAllBytes()));
            }
        }
    }
}
