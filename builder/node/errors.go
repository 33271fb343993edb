package node

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A RefusedError is what a device says when it does not do what it was asked.
type RefusedError struct {
	// Doing is what it was asked, as in "cannot DOING: ...".
	Doing string
	// Status is that of HTTP.
	Status int
	// Said is the device's answer.
	Said v1.Error
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("cannot %s: %s", e.Doing, e.Said.Message)
	if e.Said.Hint != "" {
		text += "; " + e.Said.Hint
	}
	if e.Said.Forceable {
		text += " (--force overrides this)"
	}
	return text
}

// A FingerprintError says that a device has another key than it is known for. Nothing was asked or sent.
type FingerprintError struct {
	Address   string
	Want, Got string
	// Demanded tells that Want was given for this call; else it is from File, the known devices.
	Demanded bool
	File     string
	// Other is the address by which the device with this key is known, if it is.
	Other string
}

func (e *FingerprintError) Error() string {
	if e.Demanded {
		return fmt.Sprintf("device %s has the key %s, not %s as you demand; nothing was asked or sent; is it the device that you mean?",
			e.Address, e.Got, e.Want)
	}
	if e.Other != "" {
		return fmt.Sprintf("device %s is not the one that was known by this address: it has the key of the device that is known as %s; "+
			"nothing was asked or sent. If the two have changed addresses, say so once: --fingerprint %s", e.Address, e.Other, e.Got)
	}
	return fmt.Sprintf("device %s is not the one that was known by this address: its key is %s, it was %s (%s); nothing was asked or sent. "+
		"A device that was reset or flashed anew has a new key; but somebody who wants to be taken for it has another one, too. "+
		"Compare with what the device's console shows, and if it is the same, say so once: --fingerprint %s",
		e.Address, e.Got, e.Want, e.File, e.Got)
}

// A NotAdmittedError says that a device does not take the workstation's certificate.
type NotAdmittedError struct {
	Address string
	// Context is that of the certificate, Reason what the device said, if it said anything.
	Context, Reason string
}

func (e *NotAdmittedError) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	return fmt.Sprintf("device %s does not admit context %s%s: its image does not carry the context's authority, or the certificate has expired; "+
		"nothing was changed; `skerry context list` shows the contexts, give another one with --context", e.Address, e.Context, reason)
}

// isLost tells that a connection was there and ended without an answer.
func isLost(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE},
		func(end error) bool { return errors.Is(err, end) })
}

// explain puts what a transport says into words.
func (c *Client) explain(doing string, err error) error {
	if e, ok := errors.AsType[*FingerprintError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*NotAdmittedError](err); ok {
		return e
	}
	// What TLS calls a remote error is an alert of the device: after it has shown its own key the only thing that it can be
	// unhappy with is ours.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" && c.wasMet() {
		return &NotAdmittedError{Address: c.Address(), Context: c.context.Name, Reason: e.Err.Error()}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Errorf("cannot %s: %w; is it switched on, in reach of this network, "+
			"and is its device API on the network (an image with --no-remote has none there)?", doing, err)
	}
	if isLost(err) {
		return fmt.Errorf("cannot %s: the device ended the connection: %w", doing, err)
	}
	return fmt.Errorf("cannot %s: %w", doing, err)
}
