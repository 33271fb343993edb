package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/initd/cluster/agent"
	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/notify"
	"github.com/skerryos/skerry/initd/cluster/server"
	"github.com/skerryos/skerry/initd/cluster/settings"
)

// runDirOf is the folder of sockets and of what is derived anew at each start. A second instance with its own data
// has its own.
func runDirOf(dataDir string) string {
	if dataDir == settings.DefaultDataDir {
		return "/run/skerry"
	}
	return filepath.Join(dataDir, "run")
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "skerryd",
		Short: "Kubernetes for one machine",
		Long: `Skerryd is Kubernetes for one machine: control plane, node and the tools that go with them, in one program.

Further commands, each with its own --help, also under a link of that name:
  ` + strings.Join(appletNames(), ", "),
		Example: `  skerryd server                                        # a cluster of one machine
  skerryd token                                         # what another machine joins it with
  skerryd agent --server https://10.0.0.1:6443 --token K10...::server:...
  skerryd kubectl get nodes`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(serverCommand(), agentCommand(), tokenCommand(), snapshotCommand(), upgradeCommand(), versionCommand())
	return root
}

func serverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "server",
		Short: "run a cluster's control plane, and a node beside it",
		Long: `Run the control plane of a cluster (API server, controllers, scheduler and their datastore), and a node beside it, in one process.

Settings come from flags, then the environment (SKERRY_TOKEN, SKERRY_TOKEN_FILE, SKERRY_CONFIG_FILE), then the configuration file,
whose keys are the flags' names. Names are those of K3s where K3s has the same setting.`,
		Example: `  skerryd server
  skerryd server --tls-san cluster.example.com --disable metrics-server
  skerryd server --disable-agent --data-dir /tmp/try --write-kubeconfig /tmp/try/kubeconfig`,
		Args: cobra.NoArgs,
	}
	s := settings.Flags(cmd.Flags(), settings.Server)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return run(cmd, s, func(ctx context.Context, n *notify.Notifier, ips []netip.Addr) error {
			srv := &server.Server{Settings: s, Notify: n, NodeIPs: ips, Built: built(), RunDir: runDirOf(s.DataDir)}
			return srv.Run(ctx)
		})
	}
	return cmd
}

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "run a node and join it to a server",
		Long: `Run a node and join it to a server. The token is in /var/lib/skerry/server/node-token on the server. In its full form it lets the
node know the server before it sends anything secret; the secret alone works too, then the server proves that it knows it.`,
		Example: `  skerryd agent --server https://10.0.0.1:6443 --token-file /etc/skerry/token
  skerryd agent --server https://10.0.0.1:6443 --token hello --node-label place=roof`,
		Args: cobra.NoArgs,
	}
	s := settings.Flags(cmd.Flags(), settings.Agent)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return run(cmd, s, func(ctx context.Context, n *notify.Notifier, ips []netip.Addr) error {
			return agent.Run(ctx, s, n, ips, runDirOf(s.DataDir))
		})
	}
	return cmd
}

// errAddress says that only a new start can help.
var errAddress = errors.New("address changed")

// run does what server and agent have in common: settings, logging, the node's address and its watch, signals.
func run(cmd *cobra.Command, s *settings.Settings, body func(context.Context, *notify.Notifier, []netip.Addr) error) error {
	n := notify.FromEnvironment()
	if os.Getuid() != 0 {
		return errors.New("cannot start: it must run as root")
	}
	if err := s.Load(cmd.Flags(), os.Getenv); err != nil {
		return err
	}
	mute := setupLogs(s.Debug, s.Verbosity)
	n.AfterReady = relaxHeap()
	if err := os.MkdirAll(runDirOf(s.DataDir), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of sockets: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ips, err := addresses(s)
	if err != nil {
		return err
	}
	if len(s.NodeIP) == 0 {
		go func() {
			if err := node.WatchAddress(ctx, ips[0]); err != nil {
				cancel(fmt.Errorf("%w: %w", errAddress, err))
			}
		}()
	}
	n.OnStopping = mute
	go func() { <-ctx.Done(); n.Stopping() }()
	slog.Info("starting", "version", version(), "node", s.NodeName, "address", ips[0])
	if err := body(ctx, n, ips); err != nil {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, errAddress) {
		return cause // a failure for the supervisor, which starts us again
	}
	slog.Info("stopped")
	return nil
}

func addresses(s *settings.Settings) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, ip := range s.NodeIP {
		out = append(out, netip.MustParseAddr(ip)) // checked by settings
	}
	if len(out) > 0 {
		return out, nil
	}
	own, err := node.Own()
	return []netip.Addr{own}, err
}

func tokenCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use: "token", Short: "print what another machine joins this server with", Args: cobra.NoArgs,
		Example: "  skerryd token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := os.ReadFile(filepath.Join(dataDir, "server", "node-token"))
			if errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("cannot find the token: no server has run with data-dir %s", dataDir)
			}
			if err != nil {
				return fmt.Errorf("cannot read the token: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	cmd.Flags().StringVarP(&dataDir, "data-dir", "d", settings.DefaultDataDir, "folder of the server's state")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "skerryd", version())
			return err
		},
	}
}
