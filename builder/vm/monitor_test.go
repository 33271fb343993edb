package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// fakeQEMU answers as QEMU does, with an event before each answer. It closes the connection at the command "quit".
func fakeQEMU(conn net.Conn, greeting string) {
	defer conn.Close()
	fmt.Fprintln(conn, greeting)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var request struct {
			Execute string
			ID      int
		}
		if json.Unmarshal(lines.Bytes(), &request) != nil || request.Execute == "quit" {
			return
		}
		fmt.Fprintf(conn, `{"event": "SEEN", "data": {"command": %q}}`+"\n", request.Execute)
		if request.Execute == "bad" {
			fmt.Fprintf(conn, `{"error": {"class": "GenericError", "desc": "no such thing"}, "id": %d}`+"\n", request.ID)
			continue
		}
		fmt.Fprintf(conn, `{"return": {"did": %q}, "id": %d}`+"\n", request.Execute, request.ID)
	}
}

const greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}`

func TestMonitor(t *testing.T) {
	ctx := t.Context()
	ours, theirs := net.Pipe()
	go fakeQEMU(theirs, greeting)
	var events []string
	m, err := openMonitor(ctx, ours, func(name string, data json.RawMessage) { events = append(events, name+string(data)) })
	if err != nil {
		t.Fatal(err)
	}
	answer, err := m.execute(ctx, "stop", nil)
	if err != nil || string(answer) != `{"did": "stop"}` {
		t.Errorf("got %s, %v", answer, err)
	}
	if _, err = m.execute(ctx, "bad", nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got error %v, want QEMU's", err)
	}
	want := `SEEN{"command": "qmp_capabilities"} SEEN{"command": "stop"} SEEN{"command": "bad"}`
	if got := strings.Join(events, " "); got != want {
		t.Errorf("got events %s, want %s", got, want)
	}
	// The end of QEMU ends the command that waits for it, and every later one.
	for range 2 {
		if _, err = m.execute(ctx, "quit", nil); !errors.Is(err, ErrPowerOff) {
			t.Errorf("got error %v, want that the machine is off", err)
		}
	}
}

func TestMonitorRefusesOthers(t *testing.T) {
	ours, theirs := net.Pipe()
	go fakeQEMU(theirs, `{"hello": 1}`)
	if _, err := openMonitor(t.Context(), ours, nil); err == nil {
		t.Error("a stranger's greeting was taken for QEMU's")
	}
}

func TestMonitorCommandEndsWithContext(t *testing.T) {
	ours, theirs := net.Pipe()
	go fakeQEMU(theirs, greeting)
	m, err := openMonitor(t.Context(), ours, func(string, json.RawMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.execute(ctx, "stop", nil); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	// The answer that nobody waited for does not end up with the next command.
	if answer, err := m.execute(t.Context(), "cont", nil); err != nil || string(answer) != `{"did": "cont"}` {
		t.Errorf("got %s, %v", answer, err)
	}
}
