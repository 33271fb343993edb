package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/skerryos/skerry/initd/network/discovery"
)

// Real sockets: the test runs itself again as the workstation, in a network namespace with a cable (veth) to each of two
// devices, and that runs itself again as the devices, in a namespace each. Both are called edge, in networks of their own.
const (
	roleVariable = "SKERRY_TEST_ROLE"
	linkVariable = "SKERRY_TEST_LINK"
)

// cables are the workstation's ends, the devices' ends, and their addresses.
var cables = []struct{ near, far, nearAddress, farAddress string }{
	{"eth0", "far0", "10.9.0.1/24", "10.9.0.7/24"},
	{"eth1", "far1", "10.9.1.1/24", "10.9.1.7/24"},
}

func TestNodeListRealNetwork(t *testing.T) {
	switch os.Getenv(roleVariable) {
	case "workstation":
		testWorkstation(t)
		return
	case "device":
		testDevice(t, os.Getenv(linkVariable))
		return
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to make network namespaces")
		}
		t.Skip("skipped: needs root to make network namespaces")
	}
	out, err := again("workstation", "").CombinedOutput()
	if err != nil {
		t.Fatalf("the workstation failed: %v\n%s", err, out)
	}
}

// again is this test in another role and an empty network namespace.
func again(role, link string) *exec.Cmd {
	c := exec.Command(os.Args[0], "-test.run=^TestNodeListRealNetwork$", "-test.v", "-test.timeout=120s")
	c.Env = append(os.Environ(), roleVariable+"="+role, linkVariable+"="+link)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return c
}

// configure brings a link up with an address.
func configure(t *testing.T, l netlink.Link, address string) {
	t.Helper()
	a, err := netlink.ParseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

func testWorkstation(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	var devices []*exec.Cmd
	var logs [2]bytes.Buffer
	for i, c := range cables {
		cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: c.near}, PeerName: c.far}
		if err := netlink.LinkAdd(cable); err != nil {
			t.Fatal(err)
		}
		d := again("device", c.far)
		d.Stdout, d.Stderr = &logs[i], &logs[i]
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if d.ProcessState == nil {
				d.Process.Kill()
				d.Wait()
			}
			t.Logf("the device on %s says:\n%s", c.near, &logs[i])
		}()
		devices = append(devices, d)
		far, err := netlink.LinkByName(c.far)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetNsPid(far, d.Process.Pid); err != nil {
			t.Fatal(err)
		}
		near, err := netlink.LinkByName(c.near)
		if err != nil {
			t.Fatal(err)
		}
		configure(t, near, c.nearAddress)
	}
	head := "NAME  ADDRESS   VERSION  BOARD   SLOT  PHASE  KNOWN\n"
	one, two := "edge  10.9.0.7  1.0.0    x86-64  a     ready  no\n", "edge  10.9.1.7  1.0.0    x86-64  a     ready  no\n"
	// A device starts when it likes, and needs a second to claim its name.
	until := func(want string) {
		t.Helper()
		for range 30 {
			got, said, err := skerryNodeList(t, "--wait", "1s")
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			t.Logf("not yet: %s%s", got, said)
		}
		t.Fatalf("waited in vain for\n%s", want)
	}
	until(head + one + two)
	// As where the system's resolver keeps the port for itself.
	openNetwork = discovery.OpenAside
	until(head + one + two)
	openNetwork = discovery.Open
	// One that ends in good order says so, and the other is still there.
	if err := devices[0].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := devices[0].Wait(); err != nil {
		t.Fatalf("the device failed: %v", err)
	}
	until(head + two)
}

// testDevice answers on a link, once it is there, until it is told to end.
func testDevice(t *testing.T, name string) {
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribeWithOptions(updates, t.Context().Done(), netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(cables, func(c struct{ near, far, nearAddress, farAddress string }) bool { return c.far == name })
	for u := range updates {
		if u.Attrs().Name == name {
			configure(t, u.Link, cables[i].farAddress)
			break
		}
	}
	go func() {
		for range updates {
		}
	}()
	address, _, _ := strings.Cut(cables[i].farAddress, "/")
	states := discovery.Poll(ctx, time.Second, func() discovery.State {
		return discovery.State{Hostname: "edge", ID: discovery.PublicID(name), Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: "ready",
			Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	})
	r := discovery.Responder{Open: discovery.Open, States: states}
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
}
