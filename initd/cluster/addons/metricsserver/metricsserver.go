// Package metricsserver is the resource metrics API (`kubectl top`, horizontal autoscaling): sigs.k8s.io/metrics-server as
// a library, run as the applet `skerryd metrics-server` in an ordinary pod.
package metricsserver

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/spf13/pflag"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/pkg/version"
	"k8s.io/component-base/logs"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"
	"sigs.k8s.io/metrics-server/pkg/api"
)

// Run scrapes the kubelets and serves metrics.k8s.io until ctx is done. args are upstream's flags. Kubelets are verified
// with the cluster's CA unless --kubelet-certificate-authority names another: their serving certificates come from it,
// so --kubelet-insecure-tls is not needed. Feature gates, logging and metrics are process-wide: call it once in a process.
func Run(ctx context.Context, args []string) error {
	logs.InitLogs()
	defer logs.FlushLogs()
	o := options.NewOptions()
	fs := pflag.NewFlagSet("metrics-server", pflag.ContinueOnError)
	for _, named := range o.Flags().FlagSets {
		fs.AddFlagSet(named)
	}
	klog := flag.NewFlagSet("metrics-server", flag.ContinueOnError)
	logs.AddGoFlags(klog)
	fs.AddGoFlagSet(klog)
	if err := fs.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("cannot start metrics-server: unexpected argument %q", fs.Arg(0))
	}
	if o.ShowVersion {
		fmt.Println(version.Get().GitVersion)
		return nil
	}
	if err := errors.Join(o.Validate()...); err != nil {
		return fmt.Errorf("cannot start metrics-server: %w", err)
	}
	config, err := o.ServerConfig()
	if err != nil {
		return fmt.Errorf("cannot start metrics-server: %w", err)
	}
	describe(config.Apiserver)
	server, err := config.Complete()
	if err != nil {
		return fmt.Errorf("cannot start metrics-server: %w", err)
	}
	return server.RunUntil(ctx.Done())
}

// describe replaces the OpenAPI schemas of the served types: see definitions.
func describe(c *genericapiserver.Config) {
	info := c.OpenAPIConfig.Info
	namer := openapinamer.NewDefinitionNamer(api.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	c.OpenAPIConfig.Info, c.OpenAPIV3Config.Info = info, info
}
