// Package metricsserver is the resource metrics API (`kubectl top`, horizontal autoscaling): sigs.k8s.io/metrics-server as
// a library, run as the applet `skerryd metrics-server` in an ordinary pod.
package metricsserver

import (
	"context"

	"k8s.io/component-base/logs"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

// Run scrapes the kubelets and serves metrics.k8s.io until ctx is done. args are upstream's flags. Kubelets are verified
// with the cluster's CA unless --kubelet-certificate-authority names another: their serving certificates come from it,
// so --kubelet-insecure-tls is not needed. Feature gates, logging and metrics are process-wide: call it once in a process.
func Run(ctx context.Context, args []string) error {
	logs.InitLogs()
	defer logs.FlushLogs()
	cmd := app.NewMetricsServerCommand(ctx.Done())
	cmd.Use = "metrics-server"
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	return cmd.ExecuteContext(ctx)
}
