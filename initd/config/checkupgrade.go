package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func checkCheckName(value string) error {
	if !isDNSLabel(value) {
		return fmt.Errorf("check's name %q is not valid: 1 to 63 letters a-z, digits and '-' (not first or last)", value)
	}
	return nil
}

// checkURL: http or https, without a password, which messages would show.
func checkURL(value string) error {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is not a URL of the form http://HOST/PATH or https://HOST/PATH", value)
	case u.User != nil:
		return fmt.Errorf("the URL of %s has a user or password, which would be shown in messages; remove it", u.Host)
	case u.Fragment != "":
		return fmt.Errorf("%q has a part after '#', which no server would see; remove it", value)
	}
	if port := u.Port(); port != "" {
		if err := checkPort(port); err != nil {
			return fmt.Errorf("%q: %w", value, err)
		}
	}
	return checkHost(u.Hostname())
}

func isPlainHTTP(value string) bool {
	u, err := url.Parse(value)
	return err == nil && u.Scheme == "http"
}

func checkPort(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not valid: 1 to 65535", value)
	}
	return nil
}

func checkHostPort(value string) error {
	host, port, err := net.SplitHostPort(value)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not of the form HOST:PORT, with an IPv6 address in brackets", value)
	}
	if err := checkPort(port); err != nil {
		return err
	}
	return checkHost(host)
}

// checkStatus: an answer below 200 is never the last one (RFC 9110, section 15.2).
func checkStatus(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 200 || n > 599 {
		return fmt.Errorf("status %q is not that of an answer: a number from 200 to 599", value)
	}
	return nil
}

func checkContains(value string) error {
	if value == "" || len(value) > 4096 {
		return fmt.Errorf("the text to look for has %d bytes; allowed are 1 to 4096", len(value))
	}
	return nil
}

func checkCA(value string) error {
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(value)) {
		return errors.New("there is no certificate in PEM here: write \"ca: |\" and the text from -----BEGIN CERTIFICATE----- on, indented")
	}
	return nil
}

// checkResource: the plural of a kind, and the name of its API group unless it is the core group.
func checkResource(value string) error {
	plural, group, grouped := strings.Cut(value, ".")
	if !isDNSLabel(plural) || grouped && !isSubdomain(group) {
		return fmt.Errorf("resource %q is not valid: write the plural in lower case and its group, such as deployments.apps, or nodes for the core group", value)
	}
	return nil
}

func checkNamespace(value string) error {
	if !isDNSLabel(value) {
		return fmt.Errorf("namespace %q is not valid: 1 to 63 letters a-z, digits and '-' (not first or last)", value)
	}
	return nil
}

func checkObjectName(value string) error {
	if !isSubdomain(value) {
		return fmt.Errorf("name %q is not valid: letters a-z, digits and '-' (not first or last), in parts separated by '.'", value)
	}
	return nil
}

func checkCondition(value string) error { return checkKey("condition", value) }

// Placeholders of the URL that bundles come from.
const (
	PlaceBoard        = "{board}"
	PlaceArchitecture = "{architecture}"
	PlaceVersion      = "{version}"
)

// placeholders are all of them.
var placeholders = []string{PlaceBoard, PlaceArchitecture, PlaceVersion}

func checkBundleURL(value string) error {
	plain := value
	for rest := value; ; {
		_, from, ok := strings.Cut(rest, "{")
		if !ok {
			break
		}
		name, after, closed := strings.Cut(from, "}")
		place := "{" + name + "}"
		if !closed || !slices.Contains(placeholders, place) {
			return fmt.Errorf("%q: unknown placeholder; allowed here: %s", value, strings.Join(placeholders, ", "))
		}
		plain = strings.ReplaceAll(plain, place, name)
		rest = after
	}
	return checkURL(plain)
}

func checkTimeOfDay(value string) error {
	_, err := timeOfDay(value)
	return err
}

func checkZone(value string) error {
	if value == "" {
		return errors.New("the zone is empty: write UTC or the distance from it, such as +01:00")
	}
	_, err := zoneOf(value)
	return err
}
