package addons

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// nodeHostsRetry is how long to wait while the ConfigMap is not there yet or the API server does not answer.
const nodeHostsRetry = 2 * time.Second

// keepNodeHosts writes the key NodeHosts of the ConfigMap coredns, in the format of /etc/hosts, so that pods can resolve the names
// of nodes, as with K3s. It returns when ctx is done.
func keepNodeHosts(ctx context.Context, client kubernetes.Interface, log *slog.Logger) {
	changed := make(chan struct{}, 1)
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(namesAndAddresses))
	nodes := factory.Core().V1().Nodes()
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { signal(changed) },
		UpdateFunc: func(_, _ any) { signal(changed) },
		DeleteFunc: func(any) { signal(changed) },
	}
	if _, err := nodes.Informer().AddEventHandler(handler); err != nil {
		log.Warn("cannot follow the nodes, pods will not resolve their names", "error", err)
		return
	}
	lister := nodes.Lister()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), nodes.Informer().HasSynced) {
		return
	}
	written := "" // what the ConfigMap has; another server writes the same
	for {
		retry := make(<-chan time.Time)
		text, err := nodeHosts(lister)
		if err == nil && text != written {
			err = writeNodeHosts(ctx, client, text)
		}
		switch {
		case err == nil:
			written = text
		case ctx.Err() == nil:
			if !apierrors.IsNotFound(err) {
				log.Warn("cannot write the names of the nodes for DNS, trying again", "error", err)
			}
			retry = time.After(nodeHostsRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		}
	}
}

// namesAndAddresses drops what nodeHosts does not need of a node before it is cached: images and conditions are most of it.
func namesAndAddresses(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion},
		Status:     corev1.NodeStatus{Addresses: node.Status.Addresses},
	}, nil
}

func nodeHosts(lister listers.NodeLister) (string, error) {
	nodes, err := lister.List(labels.Everything())
	if err != nil {
		return "", err
	}
	var lines []string
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				lines = append(lines, ip.String()+" "+n.Name+"\n")
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

// writeNodeHosts only changes a ConfigMap that is there: whoever replaced the add-on may have no use for it.
func writeNodeHosts(ctx context.Context, client kubernetes.Interface, text string) error {
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"NodeHosts": text}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().ConfigMaps("kube-system").Patch(ctx, "coredns", types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager + "-nodes"})
	return err
}
