package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const upgrades = `#cloud-config
skerry:
  health:
    deadline: 10m
    checks:
      - name: shop
        http: {url: http://127.0.0.1:30080/healthz, status: 204, contains: ok}
      - name: shop-tls
        http:
          url: https://shop.example.com/
          insecure: true
      - name: plc
        tcp: 192.0.2.7:502
      - name: web-rolled-out
        kubernetes: {resource: deployments.apps, namespace: default, name: web, condition: Available}
      - name: self-test
        job: {namespace: default, name: self-test}
  update:
    url: https://updates.example.com/{board}/{architecture}.skb?from={version}
    interval: 36h
    window: {start: "22:30", end: 04:00, zone: "+05:30"}
    rate: 2MiB
    usb: true
`

func TestParseReadsHealthAndUpdate(t *testing.T) {
	got := mustParse(t, upgrades)
	want := Default()
	want.Skerry.Health = Health{Deadline: 10 * time.Minute, Checks: []HealthCheck{
		{Name: "shop", HTTP: &HTTPCheck{URL: "http://127.0.0.1:30080/healthz", Status: 204, Contains: "ok"}},
		{Name: "shop-tls", HTTP: &HTTPCheck{URL: "https://shop.example.com/", Insecure: true}},
		{Name: "plc", TCP: "192.0.2.7:502"},
		{Name: "web-rolled-out", Kubernetes: &ObjectCheck{Resource: "deployments.apps", Namespace: "default", Name: "web", Condition: "Available"}},
		{Name: "self-test", Job: &JobCheck{Namespace: "default", Name: "self-test"}},
	}}
	want.Skerry.Update = Update{
		URL:      "https://updates.example.com/{board}/{architecture}.skb?from={version}",
		Interval: 36 * time.Hour, Window: &Window{"22:30", "04:00", "+05:30"}, Rate: 2 << 20, USB: true,
	}
	want.origin = got.origin
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		"skerry.health.deadline":           "user-data:4:15",
		"skerry.health.checks[0]":          "user-data:6:9",
		"skerry.health.checks[0].http.url": "user-data:7:21",
		"skerry.health.checks[2].tcp":      "user-data:13:14",
		"skerry.update.window.end":         "user-data:21:35",
	} {
		if at, ok := got.At(path); !ok || at.String() != want {
			t.Errorf("%s is at %v, want %s", path, at, want)
		}
	}
	if got, want := got.Skerry.Update.BundleURL("x86-64", "amd64", "1.2.0+a"), "https://updates.example.com/x86-64/amd64.skb?from=1.2.0%2Ba"; got != want {
		t.Errorf("the bundle is at %s, want %s", got, want)
	}
	start, end, zone := got.Skerry.Update.Window.Bounds()
	_, offset := time.Time{}.In(zone).Zone()
	if start != 22*time.Hour+30*time.Minute || end != 4*time.Hour || offset != 19800 {
		t.Errorf("the window is %v to %v, %d s from UTC", start, end, offset)
	}
}

// A stronger source replaces the list of checks and the window as a whole.
func TestMergeOfHealthAndUpdate(t *testing.T) {
	strong := mustParse(t, "#cloud-config\nskerry:\n  health: {checks: [{name: only, tcp: 'a:1'}]}\n  update: {window: {start: '01:00', end: '02:00'}}\n")
	got := Merge(strong, mustParse(t, upgrades))
	want := mustParse(t, upgrades)
	want.Skerry.Health.Checks = []HealthCheck{{Name: "only", TCP: "a:1"}}
	want.Skerry.Update.Window = &Window{Start: "01:00", End: "02:00"}
	places := got.origin
	got.origin, want.origin = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, gone := range []string{"skerry.health.checks[1]", "skerry.health.checks[0].http.url", "skerry.update.window.zone"} {
		if at, ok := places[gone]; ok {
			t.Errorf("%s is still at %v", gone, at)
		}
	}
	if at := places["skerry.health.checks[0].tcp"]; at.String() != "user-data:3:39" {
		t.Errorf("the check is at %v", at)
	}
}

func TestMistakesOfHealthAndUpdate(t *testing.T) {
	const check, update = "#cloud-config\nskerry: {health: {checks: [", "#cloud-config\nskerry:\n  update:\n    "
	for _, test := range []struct{ name, text, want string }{
		{"deadline short", "#cloud-config\nskerry: {health: {deadline: 30s}}\n", `2:29: 30s is too short: at least 1m`},
		{"deadline long", "#cloud-config\nskerry: {health: {deadline: 2h}}\n", `2:29: 2h is too long: at most 1h`},
		{"deadline without unit", "#cloud-config\nskerry: {health: {deadline: 300}}\n", `2:29: "300" is not a duration: write a number and its unit, such as 90s, 5m or 24h`},
		{"checks no list", "#cloud-config\nskerry: {health: {checks: {name: a}}}\n", `2:27: a list is expected here, not keys with values; begin each item with '- '`},
		{"check no keys", check + "shop]}}\n", `2:28: keys with values are expected here, not the text "shop"; allowed here: name, http, tcp, kubernetes, job`},
		{"check of nothing", check + "{}]}}\n", `2:28: "name" is missing: what messages call this check`},
		{"no kind", check + "{name: a}]}}\n", `2:28: a check has exactly one of: http, tcp, kubernetes, job`},
		{"two kinds", check + "{name: a, tcp: 'a:1', job: {name: b}}]}}\n", `2:28: a check has exactly one of: http, tcp, kubernetes, job`},
		{"unknown kind", check + "{name: a, htpp: {url: 'http://a'}}]}}\n", `2:38: unknown key "htpp"; did you mean "http"? allowed here: name, http, tcp, kubernetes, job`},
		{"name", check + "{name: My Shop, tcp: 'a:1'}]}}\n", `2:35: check's name "My Shop" is not valid: 1 to 63 letters a-z, digits and '-' (not first or last)`},
		{"name twice", check + "{name: a, tcp: 'a:1'}, {name: a, tcp: 'a:2'}]}}\n", `2:51: name "a" was already given in line 2`},
		{"alias", check + "&a {name: a, tcp: 'a:1'}, *a]}}\n", `2:54: aliases are not supported: write the value out`},
		{"no url", check + "{name: a, http: }]}}\n", `2:44: "url" is missing: what to ask for, such as http://127.0.0.1:30080/healthz`},
		{"url scheme", check + "{name: a, http: {url: 'ftp://a/b'}}]}}\n", `2:50: "ftp://a/b" is not a URL of the form http://HOST/PATH or https://HOST/PATH`},
		{"url password", check + "{name: a, http: {url: 'http://me:secret@a/'}}]}}\n", `2:50: the URL of a has a user or password, which would be shown in messages; remove it`},
		{"url port", check + "{name: a, http: {url: 'http://a:99999/'}}]}}\n", `2:50: "http://a:99999/": port "99999" is not valid: 1 to 65535`},
		{"status", check + "{name: a, http: {url: 'http://a/', status: 2xx}}]}}\n", `2:71: status "2xx" is not that of an answer: a number from 200 to 599`},
		{"ca with http", check + "{name: a, http: {url: 'http://a/', insecure: true}}]}}\n", `2:44: "insecure" has a meaning with https only`},
		{"ca not PEM", check + "{name: a, http: {url: 'https://a/', ca: abc}}]}}\n", `2:68: there is no certificate in PEM here: write "ca: |" and the text from -----BEGIN CERTIFICATE----- on, indented`},
		{"contains nothing", check + "{name: a, http: {url: 'https://a/', contains: ''}}]}}\n", `2:74: the text to look for has 0 bytes; allowed are 1 to 4096`},
		{"tcp", check + "{name: a, tcp: 192.0.2.7}]}}\n", `2:43: "192.0.2.7" is not of the form HOST:PORT, with an IPv6 address in brackets`},
		{"kind for resource", check + "{name: a, kubernetes: {resource: Deployment, name: b, condition: c}}]}}\n",
			`2:61: resource "Deployment" is not valid: write the plural in lower case and its group, such as deployments.apps, or nodes for the core group`},
		{"no condition", check + "{name: a, kubernetes: {resource: nodes, name: b}}]}}\n", `2:50: "condition" is missing: the type of the condition that must be True, such as Available`},
		{"job without name", check + "{name: a, job: {namespace: b}}]}}\n", `2:43: "name" is missing: that of the Job`},
		{"namespace", check + "{name: a, job: {namespace: B, name: b}}]}}\n", `2:55: namespace "B" is not valid: 1 to 63 letters a-z, digits and '-' (not first or last)`},
		{"placeholder", update + "url: https://a/{bord}.skb\n", `4:10: "https://a/{bord}.skb": unknown placeholder; allowed here: {board}, {architecture}, {version}`},
		{"placeholder open", update + "url: https://a/{board\n", `4:10: "https://a/{board": unknown placeholder; allowed here: {board}, {architecture}, {version}`},
		{"bundle url", update + "url: /srv/a.skb\n", `4:10: "/srv/a.skb" is not a URL of the form http://HOST/PATH or https://HOST/PATH`},
		{"interval", update + "interval: 1m\n", `4:15: 1m is too short: at least 5m`},
		{"window empty", update + "window:\n", `4:12: "start" is missing: the time of day at which the window opens, such as "02:00"`},
		{"window never", update + "window: {start: '02:00', end: '02:00'}\n", `4:13: the window starts and ends at 02:00: it is never open; leave it out for upgrades at any time`},
		{"window hour", update + "window: {start: '2:00', end: '24:00'}\n",
			"4:21: \"2:00\" is not a time of day: write it from \"00:00\" to \"23:59\"\nuser-data:4:34: \"24:00\" is not a time of day: write it from \"00:00\" to \"23:59\""},
		{"zone", update + "window: {start: '02:00', end: '03:00', zone: Europe/Berlin}\n",
			`4:50: zone "Europe/Berlin" is not known on devices: write UTC or the distance from it, such as +01:00`},
		{"rate", update + "rate: 2MB\n", `4:11: "2MB" is not a number of bytes: write a whole number and KiB, MiB or GiB, such as 2MiB`},
		{"rate small", update + "rate: 1KiB\n", `4:11: 1KiB bytes per second are too few: at least 16KiB`},
		{"usb", update + "usb: please\n", `4:10: true or false is expected here, not the text "please"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse("user-data", []byte(test.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if want := "user-data:" + test.want; err.Error() != want {
				t.Errorf("got\n%s\nwant\n%s", err, want)
			}
		})
	}
}

func TestHealthAndUpdateThatDoNotGoTogether(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no url", "#cloud-config\nskerry:\n  update: {interval: 1h, window: {start: '01:00', end: '02:00'}, usb: true}\n",
			"f:3:22: \"interval\" has a meaning with \"url\" only: add the URL of a bundle or remove it\n" +
				"f:3:34: \"window\" has a meaning with \"url\" only: add the URL of a bundle or remove it"},
		{"an agent's checks", "#cloud-config\nskerry:\n  role: agent\n  server: https://a\n  token: 0123456789\n  health:\n    checks: [{name: a, tcp: 'a:1'}, {name: b, job: {name: c}}]\n",
			"f:7:37: check \"b\" asks the cluster, which is possible on a server only: an agent may not read its objects; use http or tcp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse("f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(); err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestBytesAsText(t *testing.T) {
	for _, text := range []string{"2MiB", "512KiB", "1GiB", "1025KiB"} {
		if b, err := parseBytes(text); err != nil || b.String() != text {
			t.Errorf("%s: got %v, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1MiB", "1.5MiB", "2 MiB", "99999999GiB"} {
		if b, err := parseBytes(text); err == nil || !strings.Contains(err.Error(), "such as 2MiB") {
			t.Errorf("%q: got %v, %v", text, b, err)
		}
	}
}
