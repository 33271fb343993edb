package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// probe asks the API server's health paths.
type probe struct {
	client *http.Client
	base   string
}

func newProbe(c *rest.Config) (*probe, error) {
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("cannot make a client of the API server: %w", err)
	}
	return &probe{client, strings.TrimRight(c.Host, "/")}, nil
}

// get asks once. The error carries what the server said, of a list of checks those that failed.
func (p *probe) get(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", path, res.Status, failed(string(body)))
	}
	return nil
}

// failed leaves of the API server's list of checks those that failed.
func failed(answer string) string {
	var bad []string
	for line := range strings.Lines(answer) {
		if check, ok := strings.CutPrefix(strings.TrimSpace(line), "[-]"); ok {
			bad = append(bad, check)
		}
	}
	if len(bad) == 0 {
		return strings.TrimSpace(answer)
	}
	return strings.Join(bad, "; ")
}

// until asks until the answer is good: ten times a second at first, and less often the longer an answer takes. On a slow
// machine the answers would else cost a third of the processor that the API server needs to become ready.
func (p *probe) until(ctx context.Context, path string) error {
	const shortest, longest = 100 * time.Millisecond, 2 * time.Second
	for {
		asked := time.Now()
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := p.get(once, path)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w", err)
		case <-time.After(min(max(shortest, 10*time.Since(asked)), longest)):
		}
	}
}
