// Go's own net/http in a static program, as most Go tools in containers are: calls side by side, a chunked upload, an event
// stream. kb.py says what the variables mean.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
)

var (
	base   = os.Getenv("KB_BASE")
	tenant = strings.Split(os.Getenv("KB_TENANTS"), ",")[0]
)

func send(method, path string, body io.Reader) (text, protocol string, err error) {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return
	}
	request.Header.Set("Authorization", "Bearer placeholder-from-the-agent")
	if os.Getenv("KB_IDENTITY") == "header" {
		request.Header.Set("Agent-Identity", fmt.Sprintf("tenant=%q, role=%q", tenant, os.Getenv("KB_ROLE")))
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return string(all), response.Proto, err
}

// Sends, and wants to find this in the answer so often.
func expect(method, path string, body io.Reader, part string, times int) (string, error) {
	text, protocol, err := send(method, path, body)
	if err == nil && strings.Count(text, part) != times {
		err = fmt.Errorf("%s: not %d of %s in %s", path, times, part, text)
	}
	return protocol, err
}

func run() (protocol string, err error) {
	var all sync.WaitGroup
	errors := make([]error, 4)
	for n := range errors {
		all.Go(func() {
			_, errors[n] = expect("GET", fmt.Sprintf("/echo?n=%d", n), nil, `"tenant":"`+tenant+`"`, 1)
		})
	}
	all.Wait()
	for _, err := range errors {
		if err != nil {
			return "", err
		}
	}
	bytesOf := make([]byte, 1<<20)
	sum := fmt.Sprintf("%x", sha256.Sum256(bytesOf))
	unknownLength := io.MultiReader(bytes.NewReader(bytesOf))
	if _, err := expect("PUT", "/upload", unknownLength, sum, 1); err != nil {
		return "", err
	}
	return expect("GET", "/stream/5", nil, "data: ", 5)
}

func main() {
	protocol, err := run()
	outcome := map[string]any{"client": "go", "ok": err == nil, "detail": map[string]string{"go": runtime.Version(), "protocol": protocol}}
	if err != nil {
		outcome["detail"] = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(outcome)
	if err != nil {
		os.Exit(1)
	}
}
