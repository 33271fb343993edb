package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/initd/cluster/notify"
	"github.com/skerryos/skerry/initd/cluster/server"
	"github.com/skerryos/skerry/initd/cluster/settings"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "skerryd", Short: "Kubernetes for one machine",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(serverCommand())
	return root
}

func serverCommand() *cobra.Command {
	var s *settings.Settings
	cmd := &cobra.Command{
		Use: "server", Short: "run a cluster's control plane, and a node beside it", Args: cobra.NoArgs,
	}
	s = settings.Flags(cmd.Flags(), settings.Server)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.Load(cmd.Flags(), os.Getenv); err != nil {
			return err
		}
		debug.SetGCPercent(60)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		slog.Info("starting")
		srv := &server.Server{
			Settings: s, Notify: &notify.Notifier{}, NodeIPs: []netip.Addr{netip.MustParseAddr(s.NodeIP[0])}, Built: time.Now().Add(-time.Hour),
			RunDir: "/tmp/skerry-run",
		}
		return srv.Run(ctx)
	}
	return cmd
}

func defaultKubeconfig() {
	if os.Getenv("KUBECONFIG") == "" {
		if _, err := os.Stat(settings.DefaultKubeconfig); err == nil {
			os.Setenv("KUBECONFIG", settings.DefaultKubeconfig)
		}
	}
}
