package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
)

// Fingerprint asks a device for its key and nothing else, without any certificate of ours, and returns the key's fingerprint. It
// is for those who know by other means that at the address is no other device: nothing is noted.
func Fingerprint(ctx context.Context, at string) (string, error) {
	a, err := parseAddress(at)
	if err != nil {
		return "", err
	}
	var got string
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 15 * time.Second},
		Config: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // nobody has signed for the device but itself
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 {
					return errors.New("the device shows no certificate")
				}
				got = contexts.Fingerprint(s.PeerCertificates[0])
				return nil
			},
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", a.dial())
	if err != nil {
		return "", fmt.Errorf("cannot ask device %s for its key: %w", a, err)
	}
	conn.Close() // that it wants a certificate is no news
	return got, nil
}
