// Package coredns is the cluster's DNS server: CoreDNS as a library, run as the applet `skerryd coredns` in an ordinary pod.
//
// Upstream's coremain.Run is not used: it parses the flags and takes over the signals of the whole process, and ends it with
// log.Fatal. The package itself cannot be avoided (the kubernetes plugin imports it): its init puts -conf, -version, -p and
// others on flag.CommandLine, which nothing in skerryd parses. CoreDNS keeps process-wide state (caddy's registries, the
// metrics registry, the standard logger), so a process runs it at most once.
package coredns

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// serverType is the name under which dnsserver registers itself with caddy.
const serverType = "dns"

// defaultCorefile is read from the working directory when -conf is not given, as upstream does.
const defaultCorefile = "Corefile"

// options are the command line, with upstream's names and defaults.
type options struct {
	conf      string
	logFormat string
	plugins   bool
	version   bool
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("coredns", flag.ContinueOnError)
	fs.StringVar(&o.conf, "conf", "", "Corefile to load, or \"stdin\" (default \""+defaultCorefile+"\" in the working directory)")
	fs.StringVar(&o.logFormat, "log-format", "text", "log format: text or json")
	fs.BoolVar(&o.plugins, "plugins", false, "list the plugins that are built in")
	fs.BoolVar(&o.version, "version", false, "show the version")
	fs.BoolVar(&dnsserver.Quiet, "quiet", false, "do not print zones and version at start")
	fs.StringVar(&dnsserver.Port, "dns.port", dnsserver.DefaultPort, "default port")
	fs.StringVar(&dnsserver.Port, "p", dnsserver.DefaultPort, "default port")
	fs.StringVar(&caddy.PidFile, "pidfile", "", "file to write the process id to")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	if fs.NArg() > 0 {
		return options{}, fmt.Errorf("cannot start coredns: unexpected argument %q", fs.Arg(0))
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return options{}, fmt.Errorf("cannot start coredns: -log-format is %q, allowed are text and json", o.logFormat)
	}
	return o, nil
}

// Run serves DNS until ctx is done, then runs the shutdown callbacks of the plugins (health's lame duck among them) and
// stops the listeners. args are upstream's flags: -conf FILE|stdin, -dns.port, -p, -quiet, -log-format, -pidfile,
// -plugins, -version. An error means that the Corefile cannot be read or served; with a Corefile that goes bad later
// the reload plugin keeps serving the old one.
func Run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case o.version:
		fmt.Print(versionText())
		return nil
	case o.plugins:
		fmt.Println(caddy.DescribePlugins())
		return nil
	}
	if o.logFormat == "json" {
		if err := clog.Configure(o.logFormat, os.Stdout); err != nil {
			return fmt.Errorf("cannot configure the log of coredns: %w", err)
		}
	} else {
		clog.SetOutput(os.Stdout)
		log.SetFlags(0)
	}

	// The reload plugin asks caddy's loaders again for the Corefile, so it is handed over as a loader.
	caddy.RegisterCaddyfileLoader("flag", caddy.LoaderFunc(func(string) (caddy.Input, error) { return load(o.conf) }))
	corefile, err := caddy.LoadCaddyfile(serverType)
	if err != nil {
		return fmt.Errorf("cannot load the Corefile: %w", err)
	}
	if _, err := caddy.Start(corefile); err != nil {
		return fmt.Errorf("cannot serve %s: %w", corefile.Path(), err)
	}
	if !dnsserver.Quiet {
		fmt.Print(versionText())
	}
	<-ctx.Done()
	return stop()
}

// load returns the Corefile, or nil when there is none under the default name: caddy then serves dnsserver's built-in one.
func load(conf string) (caddy.Input, error) {
	if conf == "stdin" {
		return caddy.CaddyfileFromPipe(os.Stdin, serverType)
	}
	path := conf
	if path == "" {
		path = defaultCorefile
	}
	contents, err := os.ReadFile(filepath.Clean(path))
	if conf == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return caddy.CaddyfileInput{Contents: contents, Filepath: path, ServerTypeName: serverType}, nil
}

// stop does what caddy's own SIGTERM handler does, without ending the process.
func stop() error {
	var errs []error
	for _, i := range caddy.Instances() {
		errs = append(errs, i.ShutdownCallbacks()...)
	}
	errs = append(errs, caddy.Stop())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot stop coredns cleanly: %w", err)
	}
	return nil
}

func versionText() string {
	return fmt.Sprintf("%s-%s\n%s/%s, %s\n", coremain.CoreName, coremain.CoreVersion, runtime.GOOS, runtime.GOARCH, runtime.Version())
}
