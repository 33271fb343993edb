package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checks holds the rule for each text of Config by its path, numbers and durations among them; an item of a list has the path
// of the list and "[]". Every text has a row: a test holds the table against the type. Labels have a rule of their own (checkLabel).
var checks = map[string]func(value string) error{
	"hostname":             checkHostname,
	"ntp.servers[]":        checkHost,
	"ntp.pools[]":          checkDomain,
	"skerry.role":          oneOf("role", string(RoleServer), string(RoleAgent)),
	"skerry.server":        checkServer,
	"skerry.token":         checkToken,
	"skerry.tls-san[]":     checkHost,
	"skerry.disable[]":     oneOf("system workload", Addons...),
	"skerry.node-taints[]": checkTaint,

	"skerry.health.deadline":                      duration(time.Minute, time.Hour),
	"skerry.health.checks[].name":                 checkCheckName,
	"skerry.health.checks[].http.url":             checkURL,
	"skerry.health.checks[].http.status":          checkStatus,
	"skerry.health.checks[].http.contains":        checkContains,
	"skerry.health.checks[].http.ca":              checkCA,
	"skerry.health.checks[].tcp":                  checkHostPort,
	"skerry.health.checks[].kubernetes.resource":  checkResource,
	"skerry.health.checks[].kubernetes.namespace": checkNamespace,
	"skerry.health.checks[].kubernetes.name":      checkObjectName,
	"skerry.health.checks[].kubernetes.condition": checkCondition,
	"skerry.health.checks[].job.namespace":        checkNamespace,
	"skerry.health.checks[].job.name":             checkObjectName,

	"skerry.update.url":          checkBundleURL,
	"skerry.update.interval":     duration(5*time.Minute, 365*24*time.Hour),
	"skerry.update.window.start": checkTimeOfDay,
	"skerry.update.window.end":   checkTimeOfDay,
	"skerry.update.window.zone":  checkZone,
	"skerry.update.rate":         checkRate,
}

func oneOf(what string, allowed ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(allowed, value) {
			return nil
		}
		return fmt.Errorf("unknown %s %q%s allowed here: %s", what, value, suggestion(value, allowed), strings.Join(allowed, ", "))
	}
}

// checkHostname: the name is also the node's name in Kubernetes, which is a DNS subdomain in lower case (RFC 1123,
// section 2.1); the kernel keeps 64 bytes, and DNS labels and many tools 63.
func checkHostname(value string) error {
	if len(value) > 63 {
		return fmt.Errorf("hostname %q has %d characters, at most 63 are possible", value, len(value))
	}
	if isSubdomain(value) {
		return nil
	}
	if lower := strings.ToLower(value); isSubdomain(lower) {
		return fmt.Errorf("hostname %q has capital letters; write %q", value, lower)
	}
	return fmt.Errorf("hostname %q is not valid: letters a-z, digits and '-' (not first or last), in parts separated by '.'", value)
}

// checkHost accepts a DNS name or an address without port.
func checkHost(value string) error {
	if _, err := netip.ParseAddr(value); err == nil {
		return nil
	}
	return checkDomain(value)
}

func checkDomain(value string) error {
	if !isSubdomain(strings.ToLower(value)) || isNumeric(value) {
		return fmt.Errorf("%q is neither a host name nor an address; write it without scheme, port and path", value)
	}
	return nil
}

// isNumeric finds what was meant as an IPv4 address but is none, such as 10.0.0.300: no top-level domain is a number.
func isNumeric(value string) bool {
	_, err := strconv.Atoi(value[strings.LastIndexByte(value, '.')+1:])
	return err == nil
}

// checkServer: the URL names the API server, nothing below it.
func checkServer(value string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("server %q is not a URL of the form https://HOST:6443", value)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("server %q must name the server only: https://%s", value, u.Host)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("server %q has no valid port: 1 to 65535", value)
		}
	}
	return checkHost(u.Hostname())
}

// checkToken bounds the secret only: its form belongs to the Kubernetes runtime. The limits keep out what cannot be meant:
// a placeholder, a whole file, a value with blanks that would be cut on its way. The value never appears in a message.
func checkToken(value string) error {
	switch {
	case len(value) < 8:
		return fmt.Errorf("the token has %d characters; at least 8 are required, 32 random ones are a good choice", len(value))
	case len(value) > 1024:
		return fmt.Errorf("the token has %d characters; at most 1024 are allowed", len(value))
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("the token contains white space or characters beyond ASCII")
	}
	return nil
}

// Check holds against each other what the merged keys say; the problems point at the key to change.
func (c *Config) Check() error {
	var problems Problems
	add := func(path, format string, args ...any) {
		at, ok := c.At(path)
		if !ok {
			at, ok = c.At("skerry.role")
		}
		if !ok {
			at = Position{Source: "configuration"}
		}
		problems = append(problems, Problem{at, fmt.Sprintf(format, args...)})
	}
	switch c.Skerry.Role {
	case RoleAgent:
		if c.Skerry.Server == "" {
			add("skerry.server", `an agent needs "server": the URL of the server to join, such as https://10.0.0.5:6443`)
		}
		if c.Skerry.Token == "" {
			add("skerry.token", `an agent needs "token": skerry node token shows the server's, which has it in /var/lib/rancher/k3s/server/node-token`)
		}
		if len(c.Skerry.TLSSAN) > 0 {
			add("skerry.tls-san", `"tls-san" has a meaning on a server only; remove it or set role: server`)
		}
		if len(c.Skerry.Disable) > 0 {
			add("skerry.disable", `"disable" has a meaning on a server only; remove it or set role: server`)
		}
	case RoleServer:
		if c.Skerry.Server != "" {
			add("skerry.server", `"server" has a meaning on an agent only; set role: agent to join it`)
		}
	}
	c.checkUpgrade(add)
	return problems.err()
}
