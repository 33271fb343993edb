package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A monitor speaks the QEMU Machine Protocol (docs/interop/qmp-spec in QEMU's sources): JSON objects over a stream,
// where answers carry the number of their command and events come in between.
type monitor struct {
	conn    net.Conn
	onEvent func(name string, data json.RawMessage)

	mu      sync.Mutex
	next    int
	pending map[int]chan reply
	err     error // why the stream ended
}

type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class       string `json:"class"`
		Description string `json:"desc"`
	} `json:"error"`
}

// openMonitor takes over a connection to QEMU's socket: it reads the greeting and leaves the negotiation mode. onEvent is
// called from one goroutine, in the order of the events, and must not wait for a command.
func openMonitor(ctx context.Context, conn net.Conn, onEvent func(string, json.RawMessage)) (*monitor, error) {
	m := &monitor{conn: conn, onEvent: onEvent, pending: make(map[int]chan reply)}
	decoder := json.NewDecoder(conn)
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetReadDeadline(deadline)
	}
	var greeting struct {
		QMP json.RawMessage
	}
	if err := decoder.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("cannot read QEMU's greeting: %w", err)
	}
	if greeting.QMP == nil {
		return nil, errors.New("cannot talk to QEMU: its greeting is not that of the machine protocol")
	}
	conn.SetReadDeadline(time.Time{})
	go m.read(decoder)
	if _, err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *monitor) read(decoder *json.Decoder) {
	for {
		var message struct {
			reply
			ID    *int            `json:"id"`
			Event string          `json:"event"`
			Data  json.RawMessage `json:"data"`
		}
		if err := decoder.Decode(&message); err != nil {
			m.fail(err)
			return
		}
		switch {
		case message.Event != "":
			m.onEvent(message.Event, message.Data)
		case message.ID != nil:
			m.mu.Lock()
			c := m.pending[*message.ID]
			delete(m.pending, *message.ID)
			m.mu.Unlock()
			if c != nil {
				c <- message.reply
			}
		}
	}
}

// disconnected turns the end of the connection, which QEMU keeps as long as it lives, into what it means.
func disconnected(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		return fmt.Errorf("%w (%v)", ErrPowerOff, err)
	}
	return err
}

func (m *monitor) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = disconnected(err)
	for id, c := range m.pending {
		delete(m.pending, id)
		close(c)
	}
}

// execute runs one command and returns its result.
func (m *monitor) execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return nil, fmt.Errorf("cannot execute %s in QEMU: %w", command, m.err)
	}
	m.next++
	id := m.next
	answer := make(chan reply, 1)
	m.pending[id] = answer
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, id})
	if err == nil {
		_, err = m.conn.Write(append(request, '\n'))
	}
	if err != nil {
		delete(m.pending, id)
		m.mu.Unlock()
		return nil, fmt.Errorf("cannot execute %s in QEMU: %w", command, disconnected(err))
	}
	m.mu.Unlock()
	select {
	case r, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("cannot execute %s in QEMU: %w", command, ErrPowerOff)
		}
		if r.Error != nil {
			return nil, fmt.Errorf("cannot execute %s in QEMU: %s: %s", command, r.Error.Class, r.Error.Description)
		}
		return r.Return, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot execute %s in QEMU: %w", command, ctx.Err())
	}
}
