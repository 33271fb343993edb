package node

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// An address is where a device is. It has one form, so that a device is known by it however it was typed.
type address struct {
	host string // a name in small letters, or an IP address
	port uint16
}

func parseAddress(text string) (address, error) {
	a := address{host: text, port: v1.Port}
	mistake := func(why string) (address, error) {
		return address{}, fmt.Errorf("%q is not the address of a device: %s; give a host name or an IP address, with a port if it is not %d, such as 192.0.2.7 or [2001:db8::7]:%d", text, why, v1.Port, v1.Port)
	}
	if strings.Contains(text, "/") {
		return mistake("it looks like a URL")
	}
	// An address of version 6 has colons of its own: one without brackets has no port.
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		a.host = ip.Unmap().String()
		return a, nil
	}
	if strings.Contains(text, ":") {
		host, port, err := net.SplitHostPort(text)
		if err != nil {
			return mistake("host and port cannot be told apart")
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return mistake(fmt.Sprintf("%q is not a port", port))
		}
		a = address{host, uint16(n)}
	}
	if ip, err := netip.ParseAddr(a.host); err == nil {
		a.host = ip.Unmap().String()
		return a, nil
	}
	a.host = strings.ToLower(a.host)
	if a.host == "" || strings.ContainsAny(a.host, " \t[]@?#%:") {
		return mistake("it has no host name")
	}
	return a, nil
}

// String has the port only if it is not the usual one.
func (a address) String() string {
	if a.port == v1.Port {
		return a.host
	}
	return a.dial()
}

func (a address) dial() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }

func (a address) urlHost() string {
	if strings.Contains(a.host, ":") {
		return "[" + a.host + "]"
	}
	return a.host
}
