package need

import (
	"runtime"
	"strings"
	"testing"
)

// recorder notes how a test would have ended.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()        {}
func (r *recorder) Fatal(a ...any) { r.end("fatal: ", a) }
func (r *recorder) Skip(a ...any)  { r.end("skip: ", a) }
func (r *recorder) end(s string, a []any) {
	r.ended = s + a[0].(string)
	runtime.Goexit() // as the real ones
}

func outcome(f func(testing.TB)) string {
	r := &recorder{}
	done := make(chan struct{})
	go func() { defer close(done); f(r) }()
	<-done
	return r.ended
}

func TestTool(t *testing.T) {
	tests := []struct{ name, ci, tool, want string }{
		{"present", "", "go", ""},
		{"present in CI", "true", "go", ""},
		{"missing", "", "no-such-program", "skip: skipped: no-such-program is not on PATH"},
		{"missing in CI", "true", "no-such-program", "fatal: needed in CI: no-such-program is not on PATH"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("CI", test.ci)
			got := outcome(func(t testing.TB) { Tool(t, test.tool) })
			if !strings.HasPrefix(got, test.want) || (test.want == "" && got != "") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
