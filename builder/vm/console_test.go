package vm

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestConsoleLines(t *testing.T) {
	c := newConsole(time.Now(), nil, nil)
	c.pump(strings.NewReader("\x1b[2J\x1b[01;01Hhello\r\nprogress 1%\rprogress 2%\r\n\x1b[0;37mcolour\x1b[0m\nunfinished"))
	want := []string{"hello", "progress 2%", "colour", "unfinished"}
	var got []string
	for _, l := range c.Lines(0) {
		got = append(got, l.Text)
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
	if c.Last() != "unfinished" {
		t.Errorf("last line is %q", c.Last())
	}
}

func TestConsoleBoundsLine(t *testing.T) {
	c := newConsole(time.Now(), nil, nil)
	c.pump(strings.NewReader(strings.Repeat("x", 3*maximumLine)))
	total := 0
	for _, l := range c.Lines(0) {
		if len(l.Text) > 2*maximumLine {
			t.Errorf("a line has %d bytes", len(l.Text))
		}
		total += len(l.Text)
	}
	if total != 3*maximumLine {
		t.Errorf("%d bytes are left of %d", total, 3*maximumLine)
	}
}

func TestConsoleWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		r, w := io.Pipe()
		c := newConsole(time.Now(), nil, nil)
		go c.pump(r)
		io.WriteString(w, "ready 1\n")

		// A line that has come already is found, and not again from behind it.
		line, err := c.Wait(ctx, 0, `^ready (\d)$`)
		if err != nil || line.Groups[1] != "1" || line.Number != 0 {
			t.Fatalf("got %+v, %v", line, err)
		}
		found := make(chan Line)
		go func() {
			line, err := c.Wait(ctx, line.Number+1, `^ready (\d)`)
			if err != nil {
				t.Error(err)
			}
			found <- line
		}()
		synctest.Wait()
		time.Sleep(3 * time.Second) // the bubble's clock: no time passes
		io.WriteString(w, "other\nready 2")
		synctest.Wait()
		io.WriteString(w, " of 3\nready?") // a line in two pieces comes whole
		if line := <-found; line.Text != "ready 2 of 3" || line.Groups[1] != "2" || line.Number != 2 || line.At != 3*time.Second {
			t.Errorf("got %+v, want line 2 at 3s", line)
		}

		// What never comes ends with the deadline, and names what was waited for and where the guest stands.
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err = c.Wait(short, 0, "never")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"never"`) || !strings.Contains(err.Error(), "ready?") {
			t.Errorf("got error %v", err)
		}

		w.Close()
		synctest.Wait()
		if _, err = c.Wait(ctx, 0, "never"); !errors.Is(err, ErrPowerOff) {
			t.Errorf("got error %v, want that the machine is off", err)
		}
	})
}
