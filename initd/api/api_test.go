package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// device lays files out as on a device and returns their root.
func device(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var files = map[string]string{
	"/run/skerry/state.json": `{"version":"1.2","board":"x86","slot":"b","phase":"degraded","message":"m","hostname":"h",
		"addresses":["10.0.2.15"],"services":[{"name":"containerd","state":"ready","restarts":2}],"problems":["p"],"tries":-1,"new":1}`,
	"/run/skerry/timeline.json":                   `{"steps":[{"name":"mounts","stage":"initramfs","start":0.5,"end":0.75},{"name":"disk","stage":"initramfs","start":0.75,"error":"none"}]}`,
	"/run/skerry/log/containerd.log":              "new\n",
	"/run/skerry/log/containerd.log.1":            "old\n",
	"/run/skerry/log/skerryd.log":                 "",
	"/var/lib/skerry/machine/crash/0/skerryd.log": "last words\n",
	"/var/lib/skerry/machine/crash/0/dmesg":       "Oops\n",
	"/etc/skerry/kubeconfig":                      "kind: Config\n",
	"/var/lib/skerry/server/node-token":           "K10abc::server:secret\n",
	"/proc/meminfo":                               "MemTotal:  2048 kB\nMemAvailable:  1024 kB\nHugePages_Total:  0\nAnonPages:  512 kB\n",
	"/proc/1/comm":                                "init\n",
	"/proc/1/status":                              "Name:\tinit\nVmHWM:\t      20 kB\nThreads:\t7\n",
	"/proc/77/status":                             "Name:\tskerryd\nVmHWM:\t     400 kB\n",
	"/proc/1/smaps_rollup":                        "400000-7ffd [rollup]\nRss: 90 kB\nPss: 10 kB\nPss_Anon: 4 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 4 kB\n",
	"/proc/2/comm":                                "kthreadd\n",
	"/proc/2/smaps_rollup":                        "",
	"/proc/77/comm":                               "skerryd\n",
	"/proc/77/smaps_rollup":                       "Pss: 300 kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: 200 kB\n",
	"/proc/self/comm":                             "not a process of its own",
	"/sys/block/vda/stat":                         "  10 0 16 3 5 0 4096 7 0 12 13 0 0 0 0 1 2\n",
	"/sys/block/dm-0/stat":                        "  10 0 8 3 0 0 0 0 0 12 13\n",
}

// TestAnswers compares whole answers, over a device with everything and one with nothing.
func TestAnswers(t *testing.T) {
	full := New(Options{Root: device(t, files), Reboot: func() error { return nil },
		PowerOff: func() error { return errors.New("no such process") }})
	empty := New(Options{Root: device(t, nil)})
	for _, c := range []struct {
		name    string
		device  http.Handler
		request string
		want    string
	}{
		{"status", full, "GET /v1/status", `200 application/json
{
  "version": "1.2",
  "board": "x86",
  "slot": "b",
  "phase": "degraded",
  "message": "m",
  "hostname": "h",
  "addresses": [
    "10.0.2.15"
  ],
  "services": [
    {
      "name": "containerd",
      "state": "ready",
      "restarts": 2
    }
  ],
  "problems": [
    "p"
  ],
  "tries": -1,
  "timeSynced": false
}
`},
		{"status before init wrote it", empty, "GET /v1/status", `503 application/json
{
  "error": "cannot tell the machine's state: init has not written /run/skerry/state.json yet",
  "hint": "ask again in a second"
}
`},
		{"timeline", full, "GET /v1/timeline", `200 application/json
{
  "steps": [
    {
      "name": "mounts",
      "stage": "initramfs",
      "start": 0.5,
      "end": 0.75
    },
    {
      "name": "disk",
      "stage": "initramfs",
      "start": 0.75,
      "error": "none"
    }
  ]
}
`},
		{"log", full, "GET /v1/logs/containerd", "200 text/plain; charset=utf-8\nnew\n"},
		{"log by the unit's whole name", full, "GET /v1/logs/containerd.service?previous=false", "200 text/plain; charset=utf-8\nnew\n"},
		{"previous log", full, "GET /v1/logs/containerd?previous=true", "200 text/plain; charset=utf-8\nold\n"},
		{"previous log, parameter without value", full, "GET /v1/logs/containerd?previous", "200 text/plain; charset=utf-8\nold\n"},
		{"no previous log", full, "GET /v1/logs/skerryd?previous=1", `404 application/json
{
  "error": "there is no previous part of the log of skerryd: all of it is in the present one",
  "hint": "there are logs of: containerd, skerryd"
}
`},
		{"log of the previous boot", full, "GET /v1/logs/skerryd?boot=previous", "200 text/plain; charset=utf-8\nlast words\n"},
		{"no log of the previous boot", full, "GET /v1/logs/containerd?boot=previous", `404 application/json
{
  "error": "there is no log of containerd of the previous boot",
  "hint": "a boot that is stopped in order, or that init sees fail, leaves its logs; one that loses power does not"
}
`},
		{"log of another boot", full, "GET /v1/logs/skerryd?boot=-2", `400 application/json
{
  "error": "cannot show the logs of boot \"-2\": only those of the previous one are kept",
  "hint": "leave it out, or say boot=previous"
}
`},
		{"crash", full, "GET /v1/logs/crash", "200 text/plain; charset=utf-8\n== dmesg\nOops\n== skerryd.log\nlast words\n"},
		{"no crash", empty, "GET /v1/logs/crash", `404 application/json
{
  "error": "no crash is kept",
  "hint": "what a kernel says that crashes is kept where firmware has room for it; no unit has logged anything yet"
}
`},
		{"no such log", full, "GET /v1/logs/kubelet", `404 application/json
{
  "error": "there is no log of kubelet",
  "hint": "there are logs of: containerd, skerryd"
}
`},
		{"no logs at all", empty, "GET /v1/logs/kubelet", `404 application/json
{
  "error": "there is no log of kubelet",
  "hint": "no unit has logged anything yet"
}
`},
		{"log outside of the directory", full, "GET /v1/logs/..%2F..%2F..%2Fetc%2Fskerry%2Fkubeconfig", `400 application/json
{
  "error": "cannot show the log of \"../../../etc/skerry/kubeconfig\": not a unit's name",
  "hint": "there are logs of: containerd, skerryd"
}
`},
		{"odd parameter", full, "GET /v1/logs/containerd?follow=maybe", `400 application/json
{
  "error": "cannot read follow=maybe: not true or false",
  "hint": "leave it out, or say true or false"
}
`},
		{"previous log followed", full, "GET /v1/logs/containerd?follow=true&previous=true", `400 application/json
{
  "error": "cannot follow the previous part of a log: it does not grow",
  "hint": "ask for one of previous and follow"
}
`},
		{"kubeconfig", full, "GET /v1/kubeconfig", "200 application/yaml\nkind: Config\n"},
		{"no kubeconfig", empty, "GET /v1/kubeconfig", `404 application/json
{
  "error": "the device has no kubeconfig",
  "hint": "a server has one as soon as its control plane runs: ask again, and look at /v1/status; an agent never has one: ask its server"
}
`},
		{"token", full, "GET /v1/token", "200 text/plain; charset=utf-8\nK10abc::server:secret\n"},
		{"no token", empty, "GET /v1/token", `404 application/json
{
  "error": "the device has no token",
  "hint": "a server has one as soon as its control plane runs: ask again, and look at /v1/status; an agent never has one: ask its server"
}
`},
		{"memory", full, "GET /v1/memory", `200 application/json
{
  "total": 2097152,
  "available": 1048576,
  "anonymous": 524288,
  "processes": [
    {
      "pid": 77,
      "name": "skerryd",
      "pss": 307200,
      "private": 204800,
      "peak": 409600
    },
    {
      "pid": 1,
      "name": "init",
      "pss": 10240,
      "private": 5120,
      "peak": 20480
    }
  ]
}
`},
		{"disk", full, "GET /v1/disk", `200 application/json
{
  "devices": [
    {
      "name": "dm-0",
      "readBytes": 4096,
      "writtenBytes": 0
    },
    {
      "name": "vda",
      "readBytes": 8192,
      "writtenBytes": 2097152
    }
  ]
}
`},
		{"reboot", full, "POST /v1/reboot", "202 application/json\n{\n  \"action\": \"reboot\"\n}\n"},
		{"poweroff that fails", full, "POST /v1/poweroff", `500 application/json
{
  "error": "cannot ask init for poweroff; the machine was left running: no such process",
  "hint": "see the log of the unit api on the device"
}
`},
		{"wrong method", full, "GET /v1/reboot", `405 application/json
{
  "error": "cannot GET /v1/reboot",
  "hint": "allowed: POST"
}
`},
		{"no such path", full, "GET /v2/status", `404 application/json
{
  "error": "there is no /v2/status",
  "hint": "GET /v1/status tells how the machine is; a newer device may know more paths"
}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, target, _ := strings.Cut(c.request, " ")
			w := httptest.NewRecorder()
			c.device.ServeHTTP(w, httptest.NewRequest(method, target, nil))
			got := strings.TrimSuffix(w.Result().Status, " "+http.StatusText(w.Code)) + " " + w.Header().Get("Content-Type") + "\n" + w.Body.String()
			if got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// A torn file must not be passed on as if it were an answer.
func TestBrokenState(t *testing.T) {
	h := New(Options{Root: device(t, map[string]string{"/run/skerry/state.json": `{"version":"1.`})})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "/run/skerry/state.json: unexpected end of JSON input") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestFollow(t *testing.T) {
	root := device(t, map[string]string{"/run/skerry/log/u.log": "one\n"})
	server := httptest.NewServer(New(Options{Root: root, Poll: time.Millisecond}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/v1/logs/u?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	expect := func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); got != want+"\n" || err != nil {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	path := filepath.Join(root, "/run/skerry/log/u.log")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	expect("one")
	io.WriteString(f, "two\n")
	expect("two")
	// A rotation with something in each of the files that the reader has not seen yet.
	io.WriteString(f, "three\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("four\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("three")
	expect("four")
}
