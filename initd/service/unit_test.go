package service

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const everything = `# what the parser understands
[Unit]
Description=A service with everything
Documentation=https://example.com/manual
After=a.service b.service
Requires=a.service
Wants=c.service
ConditionPathExists=/usr/bin/thing
AssertPathExists=!/run/thing.lock

[Service]
Type=notify
ExecStart=/usr/bin/thing $ROLE --name "two words" \
    --socket=${DIR}/thing.sock 100%%
Environment=ROLE=server "GREETING=hello world"
Environment=DIR=/run/thing
EnvironmentFile=-/run/thing.env
; a comment of the other kind
Restart=always
RestartSec=250ms
WatchdogSec=1min 30s
TimeoutStartSec=infinity
TimeoutStopSec=20
KillMode=mixed
KillSignal=SIGINT
Delegate=yes
OOMScoreAdjust=-999
LimitNOFILE=1024:1048576
MemoryMin=64M
MemoryLow=65536K
MemoryHigh=1G
MemoryMax=infinity
CPUWeight=200
TasksMax=4096
`

func ptr[T any](v T) *T { return &v }

func TestParseUnitReadsEveryDirective(t *testing.T) {
	got, err := ParseUnit("/units/thing.service", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	want := &Unit{
		Name: "thing", Path: "/units/thing.service", Description: "A service with everything",
		After: []string{"a", "b"}, Requires: []string{"a"}, Wants: []string{"c"},
		Conditions: []Path{{"/usr/bin/thing", false}}, Asserts: []Path{{"/run/thing.lock", true}},
		Type: Notify, ExecStart: []Word{"/usr/bin/thing", "$ROLE", "--name", "two words", "--socket=${DIR}/thing.sock", "100%"},
		Environment: []string{"ROLE=server", "GREETING=hello world", "DIR=/run/thing"}, EnvironmentFiles: []EnvironmentFile{{"/run/thing.env", true}},
		Restart: RestartAlways, RestartSec: 250 * time.Millisecond, WatchdogSec: 90 * time.Second, TimeoutStopSec: 20 * time.Second,
		KillMode: KillMixed, KillSignal: syscall.SIGINT, Delegate: true, OOMScoreAdjust: ptr(-999), LimitNOFILE: &Limit{1024, 1048576},
		Resources: Resources{ptr(uint64(64 << 20)), ptr(uint64(64 << 20)), ptr(uint64(1 << 30)), ptr(Unlimited), ptr(uint64(200)), ptr(uint64(4096))},
		lines:     got.lines,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for name := range directives {
		if got.lines[name] == 0 {
			t.Errorf("the test does not cover %s=", name)
		}
	}
	if got.lines["KillMode"] != 24 {
		t.Errorf("KillMode= is in line %d, want 24", got.lines["KillMode"])
	}
}

func TestMistakesInUnitFiles(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"unknown directive", "[Unit]\nDescription=a\n[Service]\nExecStart=/a\nPrivateTmp=yes\n", "u.service:5: unknown directive PrivateTmp= in [Service]; supported there: CPUWeight, "},
		{"unknown section", "[Unit]\n\n[Install]\nWantedBy=x\n", "u.service:3: unknown section [Install]; supported: [Unit], [Service]"},
		{"wrong section", "[Unit]\nExecStart=/a\n", "u.service:2: directive ExecStart= belongs in [Service], not in [Unit]"},
		{"before section", "Type=notify\n[Service]\n", `u.service:1: "Type=notify" stands before the first section`},
		{"no assignment", "[Service]\nType\n", `u.service:2: "Type" is no directive: NAME=VALUE`},
		{"twice", "[Service]\nType=simple\nExecStart=/a\nType=notify\n", "u.service:4: directive Type= was already given in line 2"},
		{"empty", "[Service]\nExecStart=\n", "u.service:2: ExecStart= has no value"},
		{"nothing to run", "[Service]\nType=simple\n", "u.service: [Service] has no ExecStart="},
		{"relative program", "[Service]\nExecStart=thing\n", `u.service:2: ExecStart=: "thing" does not start with the absolute path of a program`},
		{"prefix", "[Service]\nExecStart=-/thing\n", `u.service:2: ExecStart=: "-/thing" does not start with the absolute path of a program`},
		{"specifier", "[Service]\nExecStart=/thing %n\n", `u.service:2: ExecStart=: specifiers are not supported: write %% for "%" in "%n"`},
		{"open quote", "[Service]\nExecStart=/thing 'a\n", "u.service:2: ExecStart=: a quotation mark is not closed"},
		{"type", "[Service]\nType=forking\n", `u.service:2: Type=: unknown value "forking"; supported: simple, notify, oneshot`},
		{"time", "[Service]\nRestartSec=soon\n", `u.service:2: RestartSec=: "soon" is no time such as 30, 250ms, 1min 30s or infinity`},
		{"size", "[Service]\nMemoryMin=-5\n", `u.service:2: MemoryMin=: "-5" is no size such as 67108864, 64M, 1G or infinity`},
		{"size too large", "[Service]\nMemoryMin=99999999999T\n", `u.service:2: MemoryMin=: "99999999999T" is no size such as 67108864, 64M, 1G or infinity`},
		{"signal", "[Service]\nKillSignal=TERM\n", `u.service:2: KillSignal=: "TERM" is no signal such as SIGTERM`},
		{"dependency", "[Unit]\nAfter=network.target\n", `u.service:2: After=: "network.target" is no service: NAME.service`},
		{"relative path", "[Unit]\nAssertPathExists=!run\n", `u.service:2: AssertPathExists=: "run" is no absolute path`},
		{"files without bound", "[Service]\nLimitNOFILE=infinity\n", "u.service:2: LimitNOFILE=: infinity is not possible: the kernel allows fs.nr_open, 1048576, at most"},
		{"soft above hard", "[Service]\nLimitNOFILE=5:4\n", "u.service:2: LimitNOFILE=: the soft limit 5 is above the hard limit 4"},
		{"variable", "[Service]\nEnvironment=1A=b\n", `u.service:2: Environment=: "1A=b" is no assignment: NAME=VALUE`},
		{"watchdog without socket", "[Service]\nExecStart=/a\nWatchdogSec=5\n", "u.service:3: WatchdogSec= needs Type=notify: only then there is a socket for signs of life"},
		{"comment that goes on", "[Service]\n# a \\\nExecStart=/a\n", `u.service:2: a comment ends in '\' and would swallow the next line`},
		{"end that goes on", "[Service]\nExecStart=/a \\", `u.service: the last line ends in '\' but nothing follows`},
		{"after a continued line", "[Service]\nExecStart=/a \\\n  b \\\n  c\nBogus=1\n", "u.service:5: unknown directive Bogus= in [Service]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseUnit("u.service", []byte(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	_, err := ParseUnit("u.service", []byte("[Service]\nType=x\nRestart=y\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "u.service:2: ") || !strings.Contains(err.Error(), "u.service:3: ") {
		t.Errorf("got %v, want both mistakes", err)
	}
}

func TestExpand(t *testing.T) {
	env := []string{"ROLE=agent", "ROLE=server", "LIST=a  b", "NONE="}
	for _, test := range []struct {
		word string
		want []string
		err  string
	}{
		{word: "$ROLE", want: []string{"server"}},
		{word: "$LIST", want: []string{"a", "b"}},
		{word: "$NONE", want: nil},
		{word: "${LIST}", want: []string{"a  b"}},
		{word: "${NONE}", want: []string{""}},
		{word: "--x=${ROLE},${LIST}", want: []string{"--x=server,a  b"}},
		{word: "a$ROLE", want: []string{"a$ROLE"}},
		{word: "$", want: []string{"$"}},
		{word: "$OTHER", err: "variable OTHER is not set"},
		{word: "x${OTHER}", err: "variable OTHER is not set"},
		{word: "${ROLE", err: `"${ROLE": ${ starts no variable`},
	} {
		got, err := expand([]Word{Word(test.word)}, env)
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%s: got %v, want error %s", test.word, err, test.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v, want %q", test.word, got, err, test.want)
		}
	}
}

func TestEnvironmentFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	u := &Unit{Environment: []string{"A=unit"}, EnvironmentFiles: []EnvironmentFile{{path, false}}}
	if _, err := u.environ(nil); err == nil {
		t.Error("a missing file that is not optional was accepted")
	}
	u.EnvironmentFiles[0].Optional = true
	if got, err := u.environ([]string{"P=1"}); err != nil || !slices.Equal(got, []string{"P=1", "A=unit"}) {
		t.Errorf("without the optional file: %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("# comment\n\nA=file\nB=\"two words\"\nC=\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := u.environ(nil); err != nil || !slices.Equal(got, []string{"A=unit", "A=file", "B=two words", "C="}) {
		t.Errorf("with the file: %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("A=1\nrubbish\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := u.environ(nil); err == nil || !strings.HasSuffix(err.Error(), `line 2: "rubbish" is no assignment: NAME=VALUE`) {
		t.Errorf("a line that is no assignment: %v", err)
	}
}

func TestUnitsThatDoNotGoTogether(t *testing.T) {
	for _, test := range []struct {
		name  string
		units map[string]string
		want  string
	}{
		{"missing", map[string]string{"a": "After=b.service"}, "a.service:2: After= names b.service, which does not exist"},
		{"itself", map[string]string{"a": "Wants=a.service"}, "a.service: units wait for each other: a → a"},
		{"cycle", map[string]string{"a": "After=b.service", "b": "Requires=c.service", "c": "After=b.service"}, "b.service: units wait for each other: b → c → b"},
		{"diamond", map[string]string{"a": "After=b.service c.service", "b": "After=d.service", "c": "After=d.service", "d": "Description=d"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, line := range test.units {
				if err := os.WriteFile(filepath.Join(dir, name+".service"), []byte("[Unit]\n"+line+"\n[Service]\nExecStart=/a\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			units, err := LoadUnits(dir)
			if test.want == "" {
				if err != nil || len(units) != len(test.units) {
					t.Errorf("got %v, %v", units, err)
				}
				return
			}
			if err == nil || strings.ReplaceAll(err.Error(), dir+"/", "") != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// What is in the image is read by the device only after it was flashed: here it is read before.
func TestUnitsOfTheImage(t *testing.T) {
	units, err := LoadUnits("../../overlay/usr/lib/skerry/units")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range units {
		names = append(names, u.Name)
		if u.Restart != RestartAlways || u.Type != Notify {
			t.Errorf("%s: Restart=%s, Type=%s; a device has nobody who starts it again, and init must know when it is ready", u.Path, u.Restart, u.Type)
		}
	}
	if want := []string{"api", "containerd", "skerryd"}; !slices.Equal(names, want) {
		t.Fatalf("units %q, want %q", names, want)
	}
	args, err := expand(units[2].ExecStart, []string{"SKERRY_ROLE=agent"})
	if want := "/usr/bin/skerryd agent --config /etc/skerry/config.yaml --container-runtime-endpoint unix:///run/skerry/containerd/containerd.sock"; err != nil || strings.Join(args, " ") != want {
		t.Errorf("skerryd is started as %q, %v, want %q", args, err, want)
	}
}

// The table in systemd.service(5), "Exit causes and the effect of the Restart= settings", row by row.
func TestRestartPolicies(t *testing.T) {
	policies := []Restart{RestartNo, RestartAlways, RestartOnSuccess, RestartOnFailure, RestartOnAbnormal, RestartOnAbort, RestartOnWatchdog}
	for _, row := range []struct {
		ending ending
		want   string // one mark for each policy
	}{
		{endedWell, ".xx...."},
		{endedWithCode, ".x.x..."},
		{endedBySignal, ".x.xxx."},
		{endedInTime, ".x.xx.."},
		{endedByDog, ".x.xx.x"},
	} {
		got := ""
		for _, policy := range policies {
			if policy.after(row.ending) {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != row.want {
			t.Errorf("ending %d: got %s, want %s", row.ending, got, row.want)
		}
	}
}

func TestEndingOf(t *testing.T) {
	for _, test := range []struct {
		status syscall.WaitStatus // as wait(2) encodes it: status<<8 | signal
		ending ending
		reason string
	}{
		{0, endedWell, "ended with exit status 0"},
		{3 << 8, endedWithCode, "ended with exit status 3"},
		{syscall.WaitStatus(syscall.SIGTERM), endedWell, "ended by signal 15 (terminated)"},
		{syscall.WaitStatus(syscall.SIGKILL), endedBySignal, "ended by signal 9 (killed)"},
		{syscall.WaitStatus(syscall.SIGSEGV), endedBySignal, "ended by signal 11 (segmentation fault)"},
	} {
		if ending, reason := endingOf(test.status); ending != test.ending || reason != test.reason {
			t.Errorf("%#x: got %d, %q, want %d, %q", test.status, ending, reason, test.ending, test.reason)
		}
	}
}

func TestBackoff(t *testing.T) {
	const short = time.Second
	for _, test := range []struct {
		name string
		base time.Duration
		ran  []time.Duration
		want []time.Duration
	}{
		{"doubles up to the bound", 10 * time.Second, []time.Duration{short, short, short, short}, []time.Duration{10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second}},
		{"forgets after a stable run", time.Second, []time.Duration{short, short, stableAfter, short}, []time.Duration{1 * time.Second, 2 * time.Second, 1 * time.Second, 2 * time.Second}},
		{"keeps a longer base", time.Minute, []time.Duration{short, short}, []time.Duration{time.Minute, time.Minute}},
		{"never spins", 0, []time.Duration{short, short}, []time.Duration{time.Millisecond, 2 * time.Millisecond}},
	} {
		var b backoff
		var got []time.Duration
		for _, ran := range test.ran {
			got = append(got, b.next(test.base, ran))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	f.Add(everything)
	f.Add("[Service]\nExecStart=/a \\\n\n[Unit]\n")
	f.Add("[Unit\n]\n=\n[Service] \\\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUnit("f.service", []byte(text))
		if err == nil && (len(u.ExecStart) == 0 || u.RestartSec < 0 || u.TimeoutStopSec < 0) {
			t.Errorf("accepted as %+v", u)
		}
	})
}
